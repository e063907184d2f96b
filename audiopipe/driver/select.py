"""Make a selection: a dataset from the segments of another one, without decoding or encoding.

The rows are chosen and placed here; the shards are copied by the workers, like those of a run.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client

from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.run_record import RUN_RECORD, RunRecord, read_config, read_run_record
from audiopipe.dataset.select_lists import has_plan, write_plan
from audiopipe.dataset.select_rows import choose_rows, count_left_out, open_parent, resolve_options
from audiopipe.dataset.selection import Selection, SelectionOptions, new_record, read_selection, refuse_overlap
from audiopipe.driver.run import RunSummary, resume
from audiopipe.driver.session import OnTick
from audiopipe.errors import ConfigError
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store
from audiopipe.store.output import check_output

__all__ = ["select"]

LOG = logging.getLogger(__name__)


def select(
    output: str,
    dest: str,
    *,
    where: str = "kept",
    languages: str | None = None,
    unique: bool = False,
    split: str | Mapping[str, float] | None = None,
    split_by: str = "video",
    shuffle: int | None = None,
    hours: float | None = None,
    rank_by: str | None = None,
    shard_mb: int = 1024,
    virtual: bool = False,
    client: Client | None = None,
    on_tick: OnTick | None = None,
    **parameters: Any,
) -> RunSummary:
    """Make a dataset from the segments of an output for which a condition holds, or resume that.

    Encoded audio is copied as it is. The same parent and options give the same bytes. An unfinished parent gives what
    is committed now. The selection is pinned to that: it cannot be resumed after the parent has changed.

    Args:
        output: address of the parent.
        dest: address of the selection; outside of the parent.
        where: a SQL condition over all columns of segments and annotations; NULL does not hold. By default the segments
            that the run kept.
        languages: a comma-separated list; by default all.
        unique: leave out the videos that have the audio of another.
        split: name and share of each split, such as "train=0.98,validation=0.01,test=0.01", by hash of the video, so
            that no video is in two.
        split_by: "speaker": no speaker is in two splits either. Equal labels count as the same person in all videos, so
            that this needs labels that do not begin again in each video.
        shuffle: seed of a random order over each language or split.
        hours: take only the best hours by `rank_by`, a column and "asc" or "desc" (the default); ties go by key.
        shard_mb: the most megabytes of a tar; the tars of a language or split have about the same size.
        virtual: copy no audio; the tables name byte ranges of the parent's tars.
        client, on_tick, parameters: as for `resume`.

    Raises:
        ConfigError: a parameter is invalid, no segment is chosen, `dest` and `output` overlap, `dest` holds something
            else, or the parent has changed since the selection was started.
        VerifyError, PlanError: `output` does not hold the output of a run, or it is damaged.
    """
    options = SelectionOptions.parse(
        where=where,
        languages=languages,
        unique=unique,
        split=split,
        split_by=split_by,
        shuffle=shuffle,
        hours=hours,
        rank_by=rank_by,
        shard_mb=shard_mb,
        virtual=virtual,
    )
    parent, store = Store(output), Store(dest)
    refuse_overlap(parent, store)
    record = read_run_record(parent)
    scratch = parameters.get("scratch")
    with tempfile.TemporaryDirectory(prefix="audiopipe-select-", dir=None if scratch is None else str(scratch)) as path:
        _plan(parent, record, store, options, Path(path), parameters)
    return resume(dest, client=client, on_tick=on_tick, **parameters)


def _plan(
    parent: Store,
    record: RunRecord,
    dest: Store,
    options: SelectionOptions,
    folder: Path,
    parameters: Mapping[str, Any],
) -> None:
    """Write the record and the plan of a selection, if they are not there."""
    planned = load_plan(parent).shard_names()
    commits = read_commits(parent, planned)
    if not commits:
        raise ConfigError(f"no shard of {parent.url} is committed yet: there is nothing to select from")
    if len(commits) < len(planned):
        LOG.warning("%s is not finished: selecting from %d of %d shards", parent.url, len(commits), len(planned))
    annotations = list_annotations(parent)
    with open_parent(parent, commits, annotations, folder) as connection:
        condition = resolve_options(connection, options)
        options = replace(options, where=condition.text)
        selection = Selection.of(parent, record, commits, annotations, options)
        is_started = dest.size(RUN_RECORD) is not None
        if is_started:
            _check_same(dest, selection)
            if has_plan(dest):
                return
        if not choose_rows(connection, parent, options, condition):
            counts = count_left_out(connection)
            reasons = "; ".join(f"{count.segments} in {count.language}: {count.label}" for count in counts[:8])
            raise ConfigError(
                f"no segment of {parent.url} is chosen (left out: {reasons}): loosen what leaves out most; "
                f"the quality report of {parent.url} shows the values"
            )
        check_output(dest)
        if not is_started:
            new = new_record(record, selection, annotations, str(parameters.get("run_id") or uuid.uuid4()))
            if not dest.create(RUN_RECORD, new.to_json()):
                _check_same(dest, selection)
        write_plan(connection, dest, read_config(dest), selection, commits)


def _check_same(dest: Store, selection: Selection) -> None:
    """Refuse a destination that does not hold this selection, begun or done."""
    recorded = read_selection(read_run_record(dest))
    if recorded is None:
        raise ConfigError(f"{dest.url} holds a run, not a selection: choose another folder")
    if recorded.digest == selection.digest:
        return
    if (recorded.run_id, recorded.config_digest) != (selection.run_id, selection.config_digest):
        raise ConfigError(f"{dest.url} holds a selection from {recorded.url}: choose another folder")
    if recorded.options != selection.options:
        differences = "; ".join(
            f"{name}: {getattr(recorded.options, name)} there, {getattr(selection.options, name)} here"
            for name in SelectionOptions.__slots__
            if getattr(recorded.options, name) != getattr(selection.options, name)
        )
        raise ConfigError(f"{dest.url} holds another selection ({differences}): choose another folder")
    raise ConfigError(
        f"{selection.url} has changed since the selection in {dest.url} was started: it had {recorded.shards} shards "
        f"and now has {selection.shards}, or an annotation was added; select into another folder"
    )
