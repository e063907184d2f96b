"""What the errors of a store mean: try again, ask a person, or an answer like any other.

An object store on a bad day answers 503, breaks off a body, or resets a connection, and all of that passes. Wrong keys,
a missing bucket and a full disk do not: waiting would only hide them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from audiopipe.errors import PermanentStoreError, StoreError

__all__ = ["is_forbidden", "s3_error_code", "to_store_error", "with_retries"]

T = TypeVar("T")

ATTEMPTS = 6
WAIT_S = 0.2
MAX_WAIT_S = 10.0

# Errors that say something about the object or the path, which callers know how to take.
RESULT_ERRORS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
EXISTS_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
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
    """Call a store until it answers, with growing pauses between the attempts.

    Args:
        what: is being done, to whom, for the message: "reading s3://bucket/name".

    Raises:
        FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError: the store's answer.
        PermanentStoreError: keys, permission, a missing bucket, a full disk; trying again would not help.
        StoreError: it failed in other ways, `ATTEMPTS` times.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(StoreError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=WAIT_S, max=MAX_WAIT_S),
        reraise=True,
    )
    result: T = attempts(_call_once, action, operation)
    return result


def _call_once(what: str, operation: Callable[[], T]) -> T:
    try:
        return operation()
    except STORE_ERRORS as error:
        told = to_store_error(what, error)
        if told is error:
            # "raise error from error" would make a chain of causes without end, which Dask follows.
            raise
        raise told from error


def to_store_error(action: str, error: Exception) -> Exception:
    """A store's error as one of ours, or itself where it is an answer."""
    code = s3_error_code(error)
    if (status := _http_status(error)) in MISSING_STATUSES:
        return FileNotFoundError(f"{action}: the server answers {status}")
    if code in EXISTS_CODES:
        return FileExistsError(f"{action}: there is one already")
    if refusal := _explain_refusal(error, code):
        return PermanentStoreError(f"{action}: {refusal}")
    if isinstance(error, RESULT_ERRORS) and code != "NoSuchUpload":
        return error
    return StoreError(f"{action}: {type(error).__name__}: {error}")


def _explain_refusal(error: Exception, code: str | None) -> str | None:
    """What a person has to mend, if that is what the store says."""
    if code == "NoSuchBucket":
        return "there is no such bucket; create it, or correct the address"
    if isinstance(error, NO_KEYS_ERRORS):
        return "no keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    if code in KEY_CODES:
        return f"the store does not know these keys ({code}); correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if is_forbidden(error):
        return f"not permitted ({code or getattr(error, 'strerror', None) or error}) to these keys or this user"
    if isinstance(error, OSError) and error.errno in FULL_ERRNOS and code is None:
        return f"{error.strerror}; make room, or make it writable"
    return None


def is_forbidden(error: BaseException | None) -> bool:
    """Whether an error says that these keys, or this user, may not; wrong keys are something else."""
    if isinstance(error, HTTP_STATUS_ERRORS):
        return _http_status(error) in (401, 403)
    return isinstance(error, PermissionError) and s3_error_code(error) not in KEY_CODES


def s3_error_code(error: BaseException) -> str | None:
    """S3's own code of an error, None where it is not from there."""
    answer = error if isinstance(error, S3_CODE_ERRORS) else error.__cause__
    if not isinstance(answer, S3_CODE_ERRORS):
        return None
    response: dict[str, dict[str, object]] = getattr(answer, "response")  # noqa: B009 - botocore may be absent
    return str(response["Error"].get("Code"))


def _http_status(error: BaseException | None) -> int | None:
    return getattr(error, "status", None) if isinstance(error, HTTP_STATUS_ERRORS) else None
