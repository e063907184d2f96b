"""Messages for parameters that are unknown or invalid; a secret in a value is not repeated."""

from __future__ import annotations

import difflib

from pydantic_core import ErrorDetails

from audiopipe.redaction import has_secret

__all__ = ["describe_invalid", "describe_unknown"]


def describe_unknown(name: str, known: list[str]) -> str:
    """Return the message for a parameter that does not exist, with the most similar name."""
    matches = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{matches[0]}'?" if matches else f"known are {', '.join(sorted(known))}"
    return f"unknown parameter '{name}': {hint}"


def describe_invalid(item: ErrorDetails) -> str:
    """Format one pydantic error as a sentence with the field, the value and the rule."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    if item["type"] == "missing":
        return f"parameter '{item['loc'][0]}' is required"
    value = "" if has_secret(str(item["input"])) else f" {item['input']!r}"
    return f"parameter '{item['loc'][0]}'{value}: {message[0].lower()}{message[1:]}"
