"""Compare the catalog that a run is given with the one that its output was planned from; find sources that have moved.

The plan is frozen with the addresses of its videos. Another catalog must not add its videos to the output by accident,
but a catalog may move, and so may the videos: the bytes of committed shards do not depend on where the sources are, so
shards that are still to be processed take the addresses that the given catalog and `source_prefix` say.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.read import is_folder_catalog, read_catalog
from audiopipe.catalog.tables import base_url
from audiopipe.catalog.validate import folder_url
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, ConfigError, TransientError
from audiopipe.plan.files import PLAN_FOLDER, ObjectStore
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.local_files import is_local
from audiopipe.store.objects import open_filesystem
from audiopipe.types import Shard

__all__ = ["Addresses", "find_addresses", "is_moved", "move_plan", "move_rows", "move_shards", "refuse_other_catalog"]

LOG = logging.getLogger(__name__)

Addresses = Mapping[str, str]  # of videos by id


def is_moved(config: RunConfig, recorded: RunConfig) -> bool:
    """Check whether the videos are to be fetched from other addresses than those that the output was planned with.

    A table names its videos relative to a folder. If only the table is somewhere else, the videos need not be.

    Args:
        recorded: the config of the output's run.
    """
    if config.source_prefix not in (None, recorded.source_prefix):
        return True
    return is_folder_catalog(config.catalog) and not _is_same_address(config.catalog, recorded.catalog)


def find_addresses(config: RunConfig, recorded: RunConfig, store: ObjectStore) -> dict[str, str]:
    """Return the addresses of all videos in the config's catalog by id.

    With a `source_prefix` and a catalog that is a folder or cannot be read, the addresses are those of the plan below
    the new prefix.

    Args:
        recorded: the config of the output's run.

    Raises:
        CatalogError, TransientError: as `read_catalog`.
    """
    try:
        table = read_catalog(config.model_copy(update={"language": "all"})).table
        return dict(zip(table["video_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    except CatalogError:
        addresses = _replace_prefix(config, recorded, store)
        if not addresses:
            raise
        return addresses


def _replace_prefix(config: RunConfig, recorded: RunConfig, store: ObjectStore) -> dict[str, str]:
    """Return the plan's addresses with the config's prefix in place of the recorded one or the catalog's folder."""
    if config.source_prefix is None:
        return {}
    old, new = _planned_folder(recorded), folder_url(config.source_prefix)
    tables = load_plan(store).tables.values()
    rows = (zip(table["video_id"].to_pylist(), table["uri"].to_pylist(), strict=True) for table in tables)
    return {video_id: new + uri.removeprefix(old) for table in rows for video_id, uri in table if uri.startswith(old)}


def _planned_folder(recorded: RunConfig) -> str:
    """Return the folder that the addresses of a plan are in, with a slash at its end."""
    if recorded.source_prefix is not None:
        return folder_url(recorded.source_prefix)
    if not is_folder_catalog(recorded.catalog):
        return base_url(recorded.catalog)[0]
    before_wildcards = re.split(r"[*?\[]", recorded.catalog, maxsplit=1)[0]
    is_glob = before_wildcards != recorded.catalog
    return folder_url(before_wildcards.rpartition("/")[0] if is_glob else recorded.catalog)


def move_shards(shards: Iterable[Shard], addresses: Addresses) -> Iterator[Shard]:
    """Yield shards whose videos have the given addresses; videos without one keep their own."""
    for shard in shards:
        videos = (replace(video, uri=addresses.get(video.video_id, video.uri)) for video in shard.videos)
        yield replace(shard, videos=tuple(videos)) if addresses else shard


def move_plan(plan: Plan, addresses: Addresses) -> Plan:
    """Return a plan whose videos have the given addresses; videos without one keep their own."""
    tables = {language: move_rows(table, addresses) for language, table in plan.tables.items()}
    return replace(plan, tables=tables)


def move_rows(rows: pa.Table, addresses: Addresses) -> pa.Table:
    """Return rows of a plan with the given addresses; videos without one keep their own."""
    if not addresses:
        return rows
    pairs = zip(rows["video_id"].to_pylist(), rows["uri"].to_pylist(), strict=True)
    uris = pa.array([addresses.get(video_id, uri) for video_id, uri in pairs], pa.string())
    return rows.set_column(rows.column_names.index("uri"), "uri", uris)


def refuse_other_catalog(config: RunConfig, recorded: RunConfig, store: ObjectStore) -> None:
    """Raise `ConfigError` if an output was planned from another catalog than the config's, unless it says `extend`.

    Two addresses are one catalog if they list the same videos in the languages of the plan. A catalog at the same
    address is another one if it lists none of them.

    Raises:
        CatalogError, TransientError: a catalog at another address cannot be read.
    """
    is_same = _is_same_address(config.catalog, recorded.catalog)
    if config.extend or not store.list(PLAN_FOLDER) or (is_same and not is_local(config.catalog)):
        return
    tables = load_plan(store).tables
    planned = pa.chunked_array([chunk for table in tables.values() for chunk in table["video_id"].chunks], pa.string())
    planned = pc.unique(planned)
    try:
        catalog = read_catalog(config.model_copy(update={"language": "all"})).table
    except (CatalogError, TransientError):
        if is_same:  # an output is resumed without its catalog
            return
        raise
    given = pc.unique(catalog.filter(pc.is_in(catalog["language"], pa.array(sorted(tables))))["video_id"])
    common = pc.sum(pc.is_in(given, planned)).as_py() or 0
    new, lost = len(given) - common, len(planned) - common
    if is_same and common:
        if new:
            LOG.info("%s has %d videos that the plan lacks; --extend adds them", config.catalog, new)
    elif new or lost:
        raise ConfigError(_explain_difference(config, recorded.catalog, len(planned), new, lost))
    elif not is_same:
        LOG.info("%s lists the same videos as %s, which the output was planned from", config.catalog, recorded.catalog)


def _explain_difference(config: RunConfig, recorded: str, planned: int, new: int, lost: int) -> str:
    origin = f"{config.output} was planned from the catalog {recorded}"
    resume = f"`audiopipe resume {config.output}`"
    if not lost:
        return (
            f"{origin}; {config.catalog} lists its {planned} videos and {new} more: add these with --extend, or leave "
            f"them out with {resume}"
        )
    other = f"{config.catalog} lacks {lost} of its {planned} videos"
    other += f" and lists {new} others" if new else ""
    return (
        f"{origin}; {other}, so it is another catalog: use {recorded}, finish the output with {resume}, choose another "
        "output, or accept this catalog with --extend"
    )


def _is_same_address(url: str, other: str) -> bool:
    return url == other or _normalize(url) == _normalize(other)


def _normalize(url: str) -> str:
    return os.path.realpath(open_filesystem(url)[1]) if is_local(url) else url.rstrip("/")
