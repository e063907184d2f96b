"""Describe a selection: the dataset it is made from, its condition and options, as its `_run.json` records them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from audiopipe import __version__
from audiopipe.dataset.annotations import Annotation
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.run_record import RunRecord, ScorerRecord
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store

__all__ = [
    "LISTS",
    "SUMMARY",
    "Selection",
    "SelectionOptions",
    "digest_of",
    "new_record",
    "read_selection",
    "refuse_overlap",
]

LISTS = "_selection"  # folder of the lists of each shard's segments and videos
SUMMARY = f"{LISTS}/summary.json"
SPLIT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
MAX_SPLITS = 32


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """The choice of segments and the layout of a selection.

    Args:
        where: the condition as SQL.
        languages: those to take; None for all.
        unique: leave out the videos that `duplicates.parquet` leaves out of the manifests.
        splits: name and share of each; empty for no splits.
        split_by: "video", or "speaker" for splits that have neither a video nor a speaker in common.
        shuffle: seed of the order; None for the order of the parent.
        hours: the most hours to take; None for all.
        rank_by: the column that decides which come first, with `hours`.
        descending: take high values first.
        shard_mb: the most megabytes of audio in a tar.
        virtual: name byte ranges of the parent's tars instead of copying them.
    """

    where: str = "kept"
    languages: tuple[str, ...] | None = None
    unique: bool = False
    splits: tuple[tuple[str, float], ...] = ()
    split_by: str = "video"
    shuffle: int | None = None
    hours: float | None = None
    rank_by: str | None = None
    descending: bool = True
    shard_mb: int = 1024
    virtual: bool = False

    def __post_init__(self) -> None:
        if self.split_by not in ("video", "speaker"):
            raise ConfigError(f"split_by is 'video' or 'speaker', not '{self.split_by}'")
        if self.splits:
            _check_splits(self.splits)
        if self.hours is not None and not (math.isfinite(self.hours) and self.hours > 0):
            raise ConfigError(f"hours must be a number above 0, not {self.hours}")
        if (self.hours is None) != (self.rank_by is None):
            raise ConfigError("hours and rank_by belong together: the best hours by a column, such as rank_by='snr_db'")
        if self.shard_mb < 1:
            raise ConfigError(f"shard_mb must be at least 1, not {self.shard_mb}")
        if self.virtual and self.shuffle is not None:
            raise ConfigError("a virtual selection has the order of the parent's tars: leave out shuffle or virtual")

    @classmethod
    def parse(
        cls,
        *,
        languages: str | Sequence[str] | None = None,
        split: str | Mapping[str, float] | None = None,
        rank_by: str | None = None,
        **options: Any,
    ) -> SelectionOptions:
        """Read options as the command has them: "train=0.98,test=0.02", "snr_db asc", "en,de".

        Raises:
            ConfigError: an option is invalid.
        """
        names = languages.split(",") if isinstance(languages, str) else languages
        column, direction = _parse_rank(rank_by)
        return cls(
            languages=None if names is None else tuple(sorted({name.strip() for name in names})),
            splits=_parse_splits(split),
            rank_by=column,
            descending=direction != "asc",
            **options,
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """The parent of a selection and what was taken from it.

    Attributes:
        url: the address of the parent.
        run_id, config_digest: of the parent's run.
        commits: sha256 over what is committed in the parent.
        shards: number of committed shards in the parent.
    """

    url: str
    run_id: str
    config_digest: str
    commits: str
    shards: int
    options: SelectionOptions

    @property
    def digest(self) -> str:
        """16 hex digits of a SHA-256 over all but the address: equal ones have the same bytes."""
        body = asdict(self)
        del body["url"]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def of(
        cls,
        parent: Store,
        record: RunRecord,
        commits: Mapping[str, Commit],
        annotations: Sequence[Annotation],
        options: SelectionOptions,
    ) -> Selection:
        """Describe a new selection, pinned to what is committed in its parent now."""
        folder = parent.local_folder
        url = parent.url if folder is None else os.path.realpath(folder)
        return cls(url, record.run_id, record.config_digest, digest_of(commits, annotations), len(commits), options)


def digest_of(commits: Mapping[str, Commit], annotations: Sequence[Annotation] = ()) -> str:
    """Return a sha256 over the objects of all shards and the annotations, whatever attempts they are of."""
    digest = hashlib.sha256()
    for shard in sorted(commits):
        objects = sorted((item.name, item.size, item.sha256) for item in commits[shard].objects)
        digest.update(json.dumps([shard, objects]).encode())
    for annotation in annotations:
        digest.update(json.dumps([annotation.record.id, annotation.record.digest, sorted(annotation.shards)]).encode())
    return digest.hexdigest()


def new_record(parent: RunRecord, selection: Selection, annotations: Sequence[Annotation], run_id: str) -> RunRecord:
    """Return the `_run.json` of a selection: that of its parent, for the audio is the same, and where it is from.

    Duplicates are not searched again: `unique` leaves out those that the parent knows.
    """
    taken = [*parent.parent["annotations"]] if parent.parent is not None else []
    for annotation in annotations:
        taken.append(ScorerRecord(annotation.record.name, annotation.record.version, annotation.columns).to_dict())
    return replace(
        parent,
        run_id=run_id,
        config_digest=selection.digest,
        config={**parent.config, "duplicate_similarity": None},
        source={
            **parent.source,
            "catalog": selection.url,
            "source_prefix": None,
            "language": "all",
            "partition_count": 1,
        },
        versions={**parent.versions, "audiopipe": __version__},
        parent={**asdict(selection), "annotations": taken},
    )


def read_selection(record: RunRecord) -> Selection | None:
    """Return what an output is a selection of; None for the output of a run."""
    if record.parent is None:
        return None
    body = {item.name: record.parent[item.name] for item in fields(Selection)}
    options = {item.name: body["options"][item.name] for item in fields(SelectionOptions)}
    options["splits"] = tuple((name, share) for name, share in options["splits"])
    options["languages"] = None if options["languages"] is None else tuple(options["languages"])
    return Selection(**{**body, "options": SelectionOptions(**options)})


def refuse_overlap(parent: Store, dest: Store) -> None:
    """Raise `ConfigError` if two outputs are the same folder, or one is inside the other, however they are spelled."""
    first, second = _location(parent), _location(dest)
    if first == second:
        raise ConfigError(f"{dest.url} is {parent.url} itself: choose another folder for the selection")
    if second.startswith(first + "/"):
        raise ConfigError(f"{dest.url} is inside {parent.url}: choose a folder outside of it for the selection")
    if first.startswith(second + "/"):
        raise ConfigError(f"{parent.url} is inside {dest.url}: choose another folder for the selection")


def _location(store: Store) -> str:
    if (folder := store.local_folder) is not None:
        return os.path.realpath(folder)
    protocol = store.fs.protocol if isinstance(store.fs.protocol, str) else min(store.fs.protocol)
    return f"{protocol}://{os.path.normpath(store.root)}"


def _parse_rank(rank_by: str | None) -> tuple[str | None, str]:
    column, _, direction = (rank_by or "").strip().partition(" ")
    direction = direction.strip().lower() or "desc"
    if direction not in ("asc", "desc"):
        raise ConfigError(f"rank_by is a column, and 'asc' or 'desc' after it, not '{rank_by}'")
    return column or None, direction


def _parse_splits(split: str | Mapping[str, float] | None) -> tuple[tuple[str, float], ...]:
    if split is None:
        return ()
    if not isinstance(split, str):
        return tuple((name, float(share)) for name, share in split.items())
    splits = []
    for part in split.split(","):
        name, _, share = part.partition("=")
        try:
            splits.append((name.strip(), float(share)))
        except ValueError:
            raise ConfigError(f"split '{part}' is not a name and a share, such as train=0.98") from None
    return tuple(splits)


def _check_splits(splits: Sequence[tuple[str, float]]) -> None:
    names = [name for name, _ in splits]
    for name in names:
        if not SPLIT_NAME.fullmatch(name):
            raise ConfigError(f"split '{name}': a name has letters, digits and '_', and begins with a letter")
    if len(set(names)) < len(names) or len(names) > MAX_SPLITS:
        raise ConfigError(f"at most {MAX_SPLITS} splits, each with another name, not {', '.join(names)}")
    if any(not share > 0 for _, share in splits) or abs(sum(share for _, share in splits) - 1) > 1e-6:
        shares = " + ".join(f"{share:g}" for _, share in splits)
        raise ConfigError(f"the shares of the splits must be above 0 and add up to 1, not {shares}")
