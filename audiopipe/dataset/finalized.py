"""Find out whether an output in an S3 store is described already, so that a driver with nothing to do reads little.

`_finalized.json` has a digest of all that the description depends on, and the MD5 of each object that it consists of.
The few objects at the top are read and compared; of the many in the folders of languages the tags of the listing are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from audiopipe import __version__
from audiopipe.dataset.annotations import Annotation
from audiopipe.dataset.checksum import add_checksum, md5, verify_checksum
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.run_record import RunRecord
from audiopipe.dataset.totals import Totals
from audiopipe.errors import VerifyError
from audiopipe.plan.files import PLAN_FOLDER
from audiopipe.store.objects import Store

__all__ = ["FINALIZED", "digest_inputs", "is_finalized", "write_finalized"]

FINALIZED = "_finalized.json"

Listing = Mapping[str, Mapping[str, Any]]


def digest_inputs(
    store: Store, run: RunRecord, commits: Mapping[str, Commit], annotations: Iterable[Annotation]
) -> str:
    """Return a SHA-256 over all that the description of an output depends on."""
    digest = hashlib.sha256(f"{__version__}\n".encode() + run.to_json())
    digest.update(json.dumps(store.list(PLAN_FOLDER)).encode())
    for shard in sorted(commits):
        commit = commits[shard]
        counts = Totals.of([commit.result]).counts()
        letters = [letter.video_id for letter in commit.result.dead_letters]
        digest.update(json.dumps([shard, commit.objects_digest, counts, letters], sort_keys=True).encode())
    for annotation in annotations:
        is_complete = annotation.shards >= commits.keys()
        digest.update(f"{annotation.record.digest} {is_complete}\n".encode())
    return digest.hexdigest()


def is_finalized(store: Store, digest: str, listed: Listing) -> bool:
    """Check whether all objects of the description exist with their content, and it is one of these inputs."""
    try:
        body = verify_checksum(store.read(FINALIZED), FINALIZED)
        top = store.read_all([name for name in body["objects"] if "/" not in name])
    except (FileNotFoundError, VerifyError):
        return False
    tags = {name: info.get("ETag") for name, info in listed.items()}
    tags |= {name: md5(data) for name, data in top.items()}
    objects: dict[str, str] = body["objects"]
    return body["digest"] == digest and all(tags.get(name) == tag for name, tag in objects.items())


def write_finalized(store: Store, digest: str, tags: Mapping[str, str]) -> None:
    """Record that an output is described.

    Args:
        digest: as `digest_inputs` returned.
        tags: MD5 of each object of the description by name.
    """
    store.replace(FINALIZED, add_checksum({"digest": digest, "objects": dict(sorted(tags.items()))}))
