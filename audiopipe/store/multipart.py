"""Uploads in parts that nobody finished: a store keeps, and charges for, what was sent, and lists no object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audiopipe.store.objects import S3_PROTOCOLS, Store
from audiopipe.store.retry import with_retries

__all__ = ["Upload", "abort", "list_unfinished"]


@dataclass(frozen=True)
class Upload:
    """A multipart upload: the object that it would have become, its id, and when it was begun (UTC)."""

    name: str
    upload_id: str
    started_at: datetime


def list_unfinished(store: Store, prefix: str) -> list[Upload]:
    """The uploads below a folder of the output that were begun and neither finished nor given up; none on a disk."""
    if store.url.split("://", 1)[0] not in S3_PROTOCOLS:
        return []
    return list(_list_pages(store, prefix))


def _list_pages(store: Store, prefix: str) -> Iterator[Upload]:
    bucket, _, root = store.root.partition("/")
    top = f"{root}/" if root else ""
    after: dict[str, Any] = {}
    while True:
        request = {"Bucket": bucket, "Prefix": f"{top}{prefix}/", **after}
        page = with_retries(
            f"listing uploads of {store.url}",
            lambda request=request: store.fs.call_s3("list_multipart_uploads", **request),  # type: ignore[misc]
        )
        for item in page.get("Uploads") or []:
            yield Upload(item["Key"].removeprefix(top), item["UploadId"], item["Initiated"])
        if not page.get("IsTruncated"):
            return
        after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort(store: Store, upload: Upload) -> None:
    """Give an upload up, so that its parts go; one that is gone already is no error."""
    bucket, _, key = store.path(upload.name).partition("/")
    request = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}

    def give_up() -> None:
        with suppress(FileNotFoundError):
            store.fs.call_s3("abort_multipart_upload", **request)

    with_retries(f"giving up the upload of {upload.name}", give_up)
