"""Add a sha256 to JSON objects and verify it: to the documents that all other objects are checked against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from audiopipe.errors import VerifyError

__all__ = ["add_checksum", "md5", "verify_checksum"]


def add_checksum(body: Mapping[str, object]) -> bytes:
    """Serialize a JSON object with an additional field `sha256`, the digest of its text without that field."""
    text = json.dumps(body, indent=1, ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({**body, "sha256": digest}, indent=1, ensure_ascii=False).encode()


def verify_checksum(data: bytes, name: str) -> dict[str, Any]:
    """Parse what `add_checksum` wrote and return it without the checksum.

    Raises:
        VerifyError: a byte has changed.
    """
    try:
        body = dict(json.loads(data))
        del body["sha256"]
        if data == add_checksum(body):
            return body
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise VerifyError(
        f"{name} is damaged: its content does not match its checksum; run `audiopipe verify OUTPUT` for the repair"
    )


def md5(data: bytes) -> str:
    """Return the tag that an S3 store gives to an object which was written by one request."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
