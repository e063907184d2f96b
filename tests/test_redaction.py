"""Secrets in addresses are found in every shape, and other addresses stay as they are."""

from __future__ import annotations

import logging
import time
import traceback

import pytest

from audiopipe.errors import CatalogError, StoreError
from audiopipe.redaction import (
    RedactingFilter,
    find_address_problem,
    has_secret,
    is_redacted,
    redact,
    redact_address,
    redact_causes,
)
from audiopipe.types import Video

SECRET_ADDRESSES = [
    ("s3://KEY:SECRET@bucket/x.tar", "s3://…@bucket/x.tar"),
    ("s3://KEY:se/SECRET@bucket/x.tar", "s3://…@bucket/x.tar"),
    ("s3://KEY:se/12@SECRET/+=@bucket/x.tar", "s3://…@bucket/x.tar"),
    ("s3://KEY:123/SECRET@bucket/x.tar", "s3://…@bucket/x.tar"),
    ("https://SECRET@host/x.tar", "https://…@host/x.tar"),
    ("https://SECRET@host/a@b.tar", "https://…@host/a@b.tar"),
    ("https://user:SECRET@host:8080/x", "https://…@host:8080/x"),
    ("https://:SECRET@host/x", "https://…@host/x"),
    ("postgres://user:SECRET@host:5432/db", "postgres://…@host:5432/db"),
    ("postgresql+psycopg://user:p/SECRET@host/db", "postgresql+psycopg://…@host/db"),
    ("ftp://user:SECRET@host/x", "ftp://…@host/x"),
    ("abfss://container:SECRET@account.dfs.core.windows.net/x", "abfss://…@account.dfs.core.windows.net/x"),
    ("https://h/x.tar?X-Amz-Signature=SECRET", "https://h/x.tar?X-Amz-Signature=…"),
    ("https://h/x?a=1&X-Amz-Security-Token=SECRET&b=2", "https://h/x?a=1&X-Amz-Security-Token=…&b=2"),
    ("https://h/x?X-Goog-Credential=SECRET", "https://h/x?X-Goog-Credential=…"),
    ("https://h/x?sv=2020&sig=SECRET%3D", "https://h/x?sv=2020&sig=…"),
    ("https://h/x?token=SECRET", "https://h/x?token=…"),
    ("https://h/x?access_token=SECRET", "https://h/x?access_token=…"),
    (
        "https://h/x?AWSAccessKeyId=SECRET&Signature=SECRET&Expires=1",
        "https://h/x?AWSAccessKeyId=…&Signature=…&Expires=1",
    ),
    ("https://h/x?api_key=SECRET#top", "https://h/x?api_key=…#top"),
    ("https://h/x#access_token=SECRET", "https://h/x#access_token=…"),
    ("https://h/;AccountName=x;AccountKey=SECRET", "https://h/;AccountName=x;AccountKey=…"),
]
PLAIN_ADDRESSES = [
    "s3://bucket/user@example.com/x.tar",
    "s3://bucket/a:b@c.tar",
    "https://host:8080/videos@2x/x.tar",
    "https://host/x.tar?versionId=abc&part=1",
    "abfss://container@account.dfs.core.windows.net/x",
    "sftp://user@host/x",
    "supabase://videos?youtube_id=id&r2_tar_key=path&completed=READY",
    "file:///data/a:b@c/x.tar",
    "/data/a:b@c/x.tar",
    "C:/data",
    "memory://out",
]


@pytest.mark.parametrize(("address", "redacted"), SECRET_ADDRESSES)
def test_a_secret_is_removed_and_refused(address: str, redacted: str) -> None:
    assert redact_address(address) == redacted
    assert redact(f"fetching {address}: gone") == f"fetching {redacted}: gone"
    assert redact(f"'{address}', \"{address}\"") == f"'{redacted}', \"{redacted}\""
    assert redact(redacted) == redacted
    assert is_redacted(redacted)
    problem = find_address_problem(address)
    assert problem is not None
    assert "SECRET" not in problem


@pytest.mark.parametrize("address", PLAIN_ADDRESSES)
def test_an_address_without_secret_stays_as_it_is(address: str) -> None:
    assert redact(address) == redact_address(address) == address
    assert not has_secret(address)
    assert not is_redacted(address)
    assert find_address_problem(address) is None


def test_a_secret_with_blanks_or_quotes_is_refused_and_removed() -> None:
    for secret in ("a b SECRET", 'a"SECRET', "a'SECRET", "<SECRET>"):
        address = f"s3://KEY:{secret}@bucket/x"
        assert has_secret(address)
        assert "SECRET" not in redact_address(address)


def test_two_addresses_in_one_text_are_both_redacted() -> None:
    text = "s3://bucket/x,s3://K:SECRET@bucket/y and https://SECRET@host/z?sig=SECRET."
    assert "SECRET" not in redact(text)
    assert "s3://bucket/x" in redact(text)


def test_a_chain_of_file_systems_is_refused() -> None:
    assert "chains file systems" in str(find_address_problem("simplecache::s3://bucket/out"))


@pytest.mark.parametrize("token", ["://", "a://b:", "://a:@", "?key", "?token=", "@", "Bearer ", "s3://a/"])
def test_a_long_text_costs_linear_time(token: str) -> None:
    started = time.monotonic()
    redact(token * (1_000_000 // len(token)))
    assert time.monotonic() - started < 10  # seconds on a loaded machine; one here


def test_messages_of_errors_and_reprs_of_videos_have_no_secret() -> None:
    address = "https://user:SECRET@host/x.tar?sig=SECRET"
    for error in (StoreError(f"fetching {address}: reset"), CatalogError(address), StoreError(OSError(address))):
        assert "SECRET" not in str(error)
        assert "SECRET" not in repr(error)
    video = Video("a", "de", address)
    assert "SECRET" not in repr(video)
    assert video.uri == address


def test_a_traceback_of_causes_has_no_secret() -> None:
    secret = "SEC" + "RET"  # a traceback shows the lines of this file

    def fail() -> None:
        try:
            try:
                raise OSError(f"https://{secret}@host/x")
            except OSError as error:
                raise ValueError(f"https://host/x?sig={secret}") from error
        except ValueError:
            raise StoreError("reading")  # noqa: B904 - its context is the error above

    with pytest.raises(StoreError) as caught:
        fail()
    redact_causes(caught.value)
    text = "".join(traceback.format_exception(caught.value))
    assert secret not in text
    assert "OSError: https://…@host/x" in text
    assert "sig=…" in text
    assert text.count("in fail") == 3


def test_a_log_handler_can_redact() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "reading %s", ("https://SECRET@host/x",), None)
    assert RedactingFilter().filter(record)
    assert record.getMessage() == "reading https://…@host/x"
