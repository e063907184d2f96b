"""List and abort unfinished multipart uploads: a store keeps their parts and charges for them, but lists no object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from audiopipe.store.objects import Store
from audiopipe.store.retry import with_retries

__all__ = ["Upload", "abort_upload", "list_unfinished"]


@dataclass(frozen=True)
class Upload:
    """An unfinished multipart upload: the name of its object, its id, and the time of its start (UTC)."""

    name: str
    upload_id: str
    started_at: datetime


def list_unfinished(store: Store, prefix: str) -> list[Upload]:
    """Return the uploads below a folder that were neither completed nor aborted; a local store has none."""
    if not store.is_s3:
        return []
    return list(_iterate_uploads(store, prefix))


def _iterate_uploads(store: Store, prefix: str) -> Iterator[Upload]:
    bucket, _, root = store.root.partition("/")
    top = f"{root}/" if root else ""
    marker: dict[str, str] = {}
    while True:
        request = {"Bucket": bucket, "Prefix": f"{top}{prefix}/", **marker}
        page = with_retries(
            f"listing uploads of {store.url}",
            lambda request=request: store.fs.call_s3("list_multipart_uploads", **request),  # type: ignore[misc]
        )
        for item in page.get("Uploads") or []:
            yield Upload(item["Key"].removeprefix(top), item["UploadId"], item["Initiated"])
        if not page.get("IsTruncated"):
            return
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort_upload(store: Store, upload: Upload) -> None:
    """Abort an upload, which removes its parts; one that was aborted already is ignored."""
    bucket, _, key = store.path(upload.name).partition("/")
    request = {"Bucket": bucket, "Key": key, "UploadId": upload.upload_id}

    def abort_once() -> None:
        with suppress(FileNotFoundError):
            store.fs.call_s3("abort_multipart_upload", **request)

    with_retries(f"aborting the upload of {upload.name}", abort_once)
