"""Messages for names that are unknown and parameters that are invalid; a secret in a value is not repeated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic_core import ErrorDetails

from audiopipe.redaction import has_secret

__all__ = ["describe_invalid", "describe_unknown", "suggest"]

MAX_LISTED = 50  # names in a message


def suggest(name: str, known: Iterable[str], listed_by: str | None = None) -> str:
    """Return the end of the message for an unknown name: the most similar name that exists, or else the known ones.

    Args:
        listed_by: the command that lists the names, for a message about more than `MAX_LISTED`.
    """
    names = {item.lower(): item for item in sorted(known)}
    if matches := difflib.get_close_matches(name.lower(), names, n=1):
        return f"did you mean '{names[matches[0]]}'?"
    if len(names) > MAX_LISTED and listed_by is not None:
        return f"`{listed_by}` lists them"
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"known are {', '.join(list(names.values())[:MAX_LISTED])}{more}"


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for a parameter that does not exist, with the most similar name."""
    return f"unknown parameter '{name}': {suggest(name, known, 'audiopipe explain')}"


def describe_invalid(item: ErrorDetails) -> str:
    """Format one pydantic error as a sentence with the field, the value and the rule."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    if item["type"] == "missing":
        return f"parameter '{item['loc'][0]}' is required"
    value = "" if has_secret(str(item["input"])) else f" {item['input']!r}"
    return f"parameter '{item['loc'][0]}'{value}: {message[0].lower()}{message[1:]}"
