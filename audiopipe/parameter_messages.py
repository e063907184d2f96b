"""Messages for names that are unknown and parameters that are invalid; a secret in a value is not repeated."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic_core import ErrorDetails

from audiopipe.redaction import has_secret

__all__ = ["describe_invalid", "describe_unknown", "suggest"]

MAX_LISTED = 50  # names in a message


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of the message for an unknown name: the most similar name that exists, or all if they are few."""
    names = {item.lower(): item for item in sorted(known)}
    matches = difflib.get_close_matches(name.lower(), names, n=1)
    if matches:
        return f"did you mean '{names[matches[0]]}'?"
    return f"known are {', '.join(names.values())}" if len(names) <= MAX_LISTED else "`audiopipe explain` lists them"


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for a parameter that does not exist, with the most similar name."""
    return f"unknown parameter '{name}': {suggest(name, known)}"


def describe_invalid(item: ErrorDetails) -> str:
    """Format one pydantic error as a sentence with the field, the value and the rule."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    if item["type"] == "missing":
        return f"parameter '{item['loc'][0]}' is required"
    value = "" if has_secret(str(item["input"])) else f" {item['input']!r}"
    return f"parameter '{item['loc'][0]}'{value}: {message[0].lower()}{message[1:]}"
