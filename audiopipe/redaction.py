"""Find secrets in addresses, and remove them from everything that is stored or shown.

A secret is the user info of an address (`s3://KEY:se/cret@bucket/…`, `https://TOKEN@host/…`) or a value of its query
that grants access (`X-Amz-Signature`, `sig`, `token`, …). A redacted address has `…` in its place, so that it can be
recognized and completed again from the catalog.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from pathlib import Path

__all__ = [
    "REDACTED",
    "RedactedError",
    "RedactingFilter",
    "find_address_problem",
    "has_secret",
    "is_redacted",
    "redact",
    "redact_address",
    "redact_causes",
    "without_query",
]

REDACTED = "…"

# The text up to the last '@' of an address. Lengths are bounded, so that a long text costs linear time.
USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31})://(?P<info>(?:(?!://)[^\s\"'<>`]){1,512})@")
PORT = re.compile(r"[^:@]*:\d{1,5}")
BUCKET_SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "r2"})  # their addresses have no port
# The name before '@' is a container or a login, which needs no hiding without a password.
NAME_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs", "hdfs", "sftp", "ssh", "smb", "git+ssh"})
SECRET_NAME = (
    r"[\w.-]{0,40}(?:signature|credential|token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key)[\w.-]{0,20}"
    r"|sig|key|pwd|auth|authorization|jwt|hmac|policy|hdnea|hdnts|code"
)
QUERY_SECRET = re.compile(rf"(?P<name>[?&;#](?:{SECRET_NAME})=)(?P<value>[^&;#\s\"'<>`]+)", re.IGNORECASE)
BEARER = re.compile(r"(?P<name>\bBearer )[\w.~+/=-]{8,}")
UNSHOWN = re.compile(r"[\s\"'<>`]")


def redact(text: str) -> str:
    """Return a text whose addresses have `…` in place of their secrets."""
    if "@" in text and "://" in text:
        text = USER_INFO.sub(_redact_user_info, text)
    if "=" in text:
        text = QUERY_SECRET.sub(_redact_value, text)
    return BEARER.sub(rf"\g<name>{REDACTED}", text) if "Bearer " in text else text


def redact_address(address: str) -> str:
    """Return an address without its secrets, also if these have characters that end an address in a text."""
    if "@" not in address and "=" not in address:  # most of them
        return address
    redacted = redact(address)
    return f"{address.partition('://')[0]}://{REDACTED}" if has_secret(redacted) else redacted


def has_secret(address: str) -> bool:
    """Check whether an address has user info or a signed query that is not redacted."""
    plain = UNSHOWN.sub("_", address)
    return redact(plain) != plain


def is_redacted(address: str) -> bool:
    """Check whether an address is one whose secrets were removed, so that nothing can be read there."""
    return f"://{REDACTED}" in address or f"={REDACTED}" in address


def find_address_problem(address: str) -> str | None:
    """Return why an address is refused as a parameter, without a part of it; None if it is not."""
    if has_secret(address):
        return "contains a password, a token or a signature; remove it and set it in the environment instead"
    if "::" in address:
        return "contains '::', which chains file systems, so that parts of an output would go to different places"
    return None


def without_query(address: str) -> str:
    """Return an HTTP address without its query, which is not part of the object's name; others as they are."""
    return re.split(r"[?#]", address, maxsplit=1)[0] if address.startswith(("http://", "https://")) else address


class RedactedError(Exception):
    """An exception whose message has no secret of an address, whatever it was raised with."""

    def __init__(self, message: object = "") -> None:
        super().__init__(redact(str(message)))


def redact_causes(error: BaseException) -> None:
    """Replace the causes of an error whose message has a secret: a traceback prints them, and a log keeps it."""
    known: set[int] = set()
    while id(error) not in known:
        known.add(id(error))
        if error.__cause__ is not None:
            error.__cause__ = _without_secret(error.__cause__)
        if error.__context__ is not None:
            suppressed, error.__context__ = error.__suppress_context__, _without_secret(error.__context__)
            error.__suppress_context__ = suppressed
        error = error.__cause__ or error.__context__ or error


def _without_secret(error: BaseException) -> BaseException:
    """Return an error as it is, or one with the redacted message, the same traceback and the same causes."""
    if redact(str(error)) == str(error):
        return error
    shown = RedactedError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    shown.__cause__, shown.__context__ = error.__cause__, error.__context__
    shown.__suppress_context__ = error.__suppress_context__
    return shown


class RedactingFilter(logging.Filter):
    """Redact the records of a handler or a logger, with the tracebacks in them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's texts; keep the record."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return True


def _redact_value(match: re.Match[str]) -> str:
    """Replace a value of a query, but not the punctuation of the sentence after it."""
    value = match["value"]
    return f"{match['name']}{REDACTED}{value[len(value.rstrip(':,.)]')) :]}"


def _redact_user_info(match: re.Match[str]) -> str:
    scheme, info = match["scheme"], match["info"]
    authority = re.split(r"[/?#]", info, maxsplit=1)[0]
    start = f"{scheme}://"
    if ":" in authority:
        is_port = PORT.fullmatch(authority) and authority != info and scheme.lower() not in BUCKET_SCHEMES
        return match[0] if is_port else f"{start}{REDACTED}@"
    name, separator, rest = info.partition("@")
    if authority != info and not (separator and len(name) < len(authority)):
        return match[0]  # the '@' is in the path
    if scheme.lower() in NAME_SCHEMES:
        return match[0]
    return f"{start}{REDACTED}@{rest}@" if separator else f"{start}{REDACTED}@"


def main(path: str, *texts: str) -> int:
    """Refuse a file of parameters, or other texts, with a secret: papermill would write them into the notebook."""
    for name, text in [(path, Path(path).read_text("utf-8")), *(("an option", text) for text in texts)]:
        if redact(text) != text or any(has_secret(line) for line in text.splitlines()):
            sys.stderr.write(f"{name} contains a password, a token or a signature: set it in the environment instead\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
