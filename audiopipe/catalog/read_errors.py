"""Turn whatever a file system, a network or a format raises while a catalog is read into this package's errors."""

from __future__ import annotations

import lzma
import socket
import zlib

import pyarrow as pa

from audiopipe.errors import AudiopipeError, CatalogError
from audiopipe.store.retry import HTTP_ERRORS, S3_ERRORS, http_cause, s3_error_code, to_store_error

__all__ = ["READ_ERRORS", "first_line", "to_catalog_error"]

NETWORK_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)
# The exceptions of file systems, networks and formats for something that cannot be read.
READ_ERRORS = (
    *(OSError, ValueError, ImportError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError),
    *(pa.ArrowException, *S3_ERRORS, *HTTP_ERRORS),
)


def to_catalog_error(url: str, action: str, error: Exception, remedy: str) -> AudiopipeError:
    """Return `StoreError` or `PermanentStoreError` if the network or the store failed, else `CatalogError`."""
    cause = http_cause(error) or error
    if isinstance(cause, (*NETWORK_ERRORS, *HTTP_ERRORS, *S3_ERRORS)) or s3_error_code(cause):
        converted = to_store_error(f"catalog {url} cannot be {action}", cause)
        if isinstance(converted, AudiopipeError):
            return converted
    return CatalogError(f"catalog {url} cannot be {action} ({first_line(error)}); {remedy}")


def first_line(error: BaseException) -> str:
    """Return the type and the first line of the message of an error."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
