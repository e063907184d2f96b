"""Write a tar and a manifest without samples for each shard of which nothing was kept.

NeMo is given a range, `audio__OP_000000..000999_CL_.tar`. It asks for the same numbers of tars and manifests,
and takes a shard's number as its position among the manifests, so no number may be missing. `tars.txt` leaves these
tars out, because other loaders look into the first tar for samples.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from functools import cache

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.duplicates import unique_name
from audiopipe.dataset.schema import object_names

__all__ = ["empty_files"]


def empty_files(commits: Iterable[Commit], unique: bool = True) -> dict[str, bytes]:
    """Return the objects without samples, by name.

    Args:
        commits: of the shards.
        unique: add the manifests without duplicates.
    """
    files: dict[str, bytes] = {}
    for commit in commits:
        names = object_names(commit.result.language, commit.result.index)
        if names["manifest"] not in {item.name for item in commit.objects}:
            files |= {names["audio"]: _empty_tar(), names["manifest"]: b""}
            files |= {unique_name(names["manifest"]): b""} if unique else {}
    return files


@cache
def _empty_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT):
        pass
    return buffer.getvalue()
