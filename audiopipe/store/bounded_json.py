"""Parse JSON of strangers: of a bounded number of values and depth, and one document at a time in a process.

A parsed document may take ten times its bytes. To wait for each other costs no time, as the interpreter runs one thread
at a time anyway.
"""

from __future__ import annotations

import json
import threading

__all__ = ["PARSER_LOCK", "load_json"]

MAX_VALUES = 2_000_000  # ten hours of words with probabilities and tokens have a million; a value takes up to 250 bytes

# Held while a document is parsed and read.
PARSER_LOCK = threading.Lock()


def load_json(data: bytes) -> object:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or goes beyond a limit.
    """
    # An upper bound, as text has commas too. Every value but the first follows one of these.
    count = sum(map(data.count, (b",", b"[", b"{")))
    if count > MAX_VALUES:
        raise ValueError(f"it has {count} values; the limit is {MAX_VALUES}")
    try:
        document: object = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return document
