"""Complete the addresses of videos that a plan stores without their secrets.

A plan is an object that many people can read and that outlives a signature, so it has `…` where the catalog has user
info or a signature. The driver reads the catalog again, whose addresses may be newer, and gives them to the workers in
the shards; they are in no file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.read import Catalog, read_catalog
from audiopipe.config import RunConfig
from audiopipe.plan.sources import move_shards
from audiopipe.redaction import is_redacted
from audiopipe.types import Shard

__all__ = ["complete_addresses"]

LOG = logging.getLogger(__name__)


def complete_addresses(
    shards: Sequence[Shard],
    config: RunConfig,
    committed: Set[str] = frozenset(),
    catalog_reader: Callable[[RunConfig], Catalog] = read_catalog,
) -> list[Shard]:
    """Return shards whose videos can be fetched; the catalog is read only if one of their addresses is redacted.

    A video that the catalog no longer has keeps its redacted address, which `fetch` refuses.

    Args:
        committed: names of the shards that are not fetched again, and keep their addresses.

    Raises:
        CatalogError: the catalog cannot be read.
    """
    videos = (video for shard in shards if shard.name not in committed for video in shard.videos)
    ids = [video.video_id for video in videos if is_redacted(video.uri)]
    if not ids:
        return list(shards)
    LOG.info("reading the addresses of %d videos from the catalog, because the plan has them without secrets", len(ids))
    table = catalog_reader(config.model_copy(update={"language": "all"})).table
    rows = table.filter(pc.is_in(table["video_id"], pa.array(ids, pa.string())))
    uris = dict(zip(rows["video_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
    return list(move_shards(shards, uris))
