"""Retry the operations of an object store, and classify its errors: temporary, permanent, or a result for the caller.

Temporary errors (503, a truncated body, a reset connection) are retried. Wrong keys, a missing bucket and a full disk
are permanent: retries would only delay the message. A missing object is a result.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from audiopipe.errors import BrokenWorker, PermanentStoreError, StoreError

__all__ = ["http_cause", "is_forbidden", "is_name_invalid", "s3_error_code", "to_store_error", "with_retries"]

T = TypeVar("T")

ATTEMPTS = 6
WAIT_S = 0.2  # upper bound of the random wait before the second attempt; it doubles with each further attempt
MAX_WAIT_S = 10.0

# Results about the object or the path, which the callers handle.
RESULT_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
NAME_REMEDIES = {errno.ENAMETOOLONG: "shorten the name", errno.ELOOP: "correct the link, which leads to itself"}
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
DISK_REMEDIES = dict.fromkeys(FULL_ERRNOS, "make room, or make it writable") | NAME_REMEDIES
EXISTS_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
LONG_KEY = "KeyTooLongError"
REFUSALS = {
    LONG_KEY: "the key is too long: shorten it",
    "NoSuchBucket": "the bucket does not exist: create it, or correct the URL",
    "NotImplemented": (
        "the store does not implement this request (NotImplemented). An output needs conditional writes "
        "(If-None-Match): use a store that has them, or a folder"
    ),
}
CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
# S3 answers HEAD without a body and so without a code. The time of the answer then shows whether the clock is wrong:
# S3 refuses requests that are off by 15 minutes.
NO_CODE = "403"
MAX_CLOCK_ERROR_S = 600.0
KEY_CODES = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
MISSING_STATUSES = frozenset({404, 410})


def _optional(module: str, *names: str) -> tuple[type[Exception], ...]:
    """Return exception classes of a package, or none if it is not installed: then nothing can raise them."""
    try:
        loaded = import_module(module)
    except ModuleNotFoundError:
        return ()
    return tuple(getattr(loaded, name) for name in names)


HTTP_ERRORS = _optional("aiohttp", "ClientError")
HTTP_STATUS_ERRORS = _optional("aiohttp", "ClientResponseError")
S3_ERRORS = _optional("botocore.exceptions", "BotoCoreError", "ClientError")
S3_CODE_ERRORS = _optional("botocore.exceptions", "ClientError")
NO_KEYS_ERRORS = _optional("botocore.exceptions", "NoCredentialsError", "PartialCredentialsError")
STORE_ERRORS: tuple[type[Exception], ...] = (OSError, *HTTP_ERRORS, *S3_ERRORS)


def with_retries(action: str, operation: Callable[[], T]) -> T:
    """Call an operation of a store and retry temporary errors, with exponential backoff and jitter.

    Args:
        action: the operation and its object for messages, for example "reading s3://bucket/name".

    Raises:
        FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError: the result of the operation.
        PermanentStoreError: wrong keys, no permission, a missing bucket, or a full disk.
        BrokenWorker: the clock of this machine is wrong.
        StoreError: `ATTEMPTS` attempts failed in another way.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(StoreError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=WAIT_S, max=MAX_WAIT_S),
        reraise=True,
    )
    result: T = attempts(_call_once, action, operation)
    return result


def _call_once(action: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except STORE_ERRORS as error:
        cause = http_cause(error) or error
        store_error = to_store_error(action, cause)
        if store_error is error:
            # "raise error from error" would make the error its own cause, and Dask follows causes without end.
            raise
        raise store_error from cause


def to_store_error(action: str, error: Exception) -> Exception:
    """Convert an error of a store client to `StoreError` or `PermanentStoreError`; return a result unchanged."""
    code = s3_error_code(error)
    if (status := _http_status(error)) in MISSING_STATUSES:
        return FileNotFoundError(f"{action}: the server answers {status}")
    if code in CLOCK_CODES or (code == NO_CODE and _is_clock_wrong(error)):
        return BrokenWorker(f"{action}: the store refuses the time of this machine ({code}): set its clock")
    if code in EXISTS_CODES:
        return FileExistsError(f"{action}: the object exists already")
    if refusal := _explain_refusal(error, code):
        return PermanentStoreError(f"{action}: {refusal}")
    if isinstance(error, RESULT_ERRORS) and code != "NoSuchUpload":
        return error
    return StoreError(f"{action}: {type(error).__name__}: {error}")


def _explain_refusal(error: Exception, code: str | None) -> str | None:
    """Return the problem and the remedy of a permanent error, None for other errors."""
    if code in REFUSALS:
        return REFUSALS[code]
    if isinstance(error, NO_KEYS_ERRORS):
        return "no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    if code in KEY_CODES:
        return f"the store does not know these keys ({code}): correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if is_forbidden(error):
        return f"not permitted ({code or getattr(error, 'strerror', None) or error}) for these keys or this user"
    if isinstance(error, OSError) and code is None and error.errno in DISK_REMEDIES:
        return f"{error.strerror}; {DISK_REMEDIES[error.errno]}"
    return None


def is_forbidden(error: BaseException | None) -> bool:
    """Check whether an error means that these keys or this user have no permission; wrong keys do not count."""
    if isinstance(error, HTTP_STATUS_ERRORS):
        return _http_status(error) in (401, 403)
    return isinstance(error, PermissionError) and s3_error_code(error) not in KEY_CODES


def is_name_invalid(error: BaseException | None) -> bool:
    """Check whether an error means that no object can have the address: it is too long, or a link leads to itself."""
    if error is not None and s3_error_code(error) == LONG_KEY:
        return True
    return isinstance(error, OSError) and error.errno in NAME_REMEDIES


def s3_error_code(error: BaseException) -> str | None:
    """Return the S3 error code of an error or of its cause, None if it does not come from S3."""
    response = _s3_response(error)
    return None if response is None else str(response["Error"].get("Code"))


def _s3_response(error: BaseException) -> dict[str, Any] | None:
    """Return the response of S3 that an error or its cause reports, None if it does not come from S3."""
    s3_error = error if isinstance(error, S3_CODE_ERRORS) else error.__cause__
    if not isinstance(s3_error, S3_CODE_ERRORS):
        return None
    response: dict[str, Any] = getattr(s3_error, "response")  # noqa: B009 - botocore may be absent
    return response


def _is_clock_wrong(error: BaseException) -> bool:
    """Check whether the time of S3's response is far from the time of this machine."""
    response = _s3_response(error) or {}
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    with suppress(TypeError, ValueError):
        return abs((parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()) > MAX_CLOCK_ERROR_S
    return False


def http_cause(error: Exception) -> Exception | None:
    """Return the error behind fsspec's FileNotFoundError for any failed request over HTTP, None for other errors."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
    is_http = isinstance(cause, (*HTTP_ERRORS, TimeoutError)) and s3_error_code(error) is None
    return cause if is_http and isinstance(cause, Exception) else None


def _http_status(error: BaseException | None) -> int | None:
    return getattr(error, "status", None) if isinstance(error, HTTP_STATUS_ERRORS) else None
