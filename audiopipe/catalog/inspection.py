"""Describe what a run would take of a catalog, without running it: format, files, languages, columns, problems."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from audiopipe.catalog.files import FOLDER, UNDETERMINED
from audiopipe.catalog.formats import Format, find_format
from audiopipe.catalog.layout import Layout, choose_layout, suggest_columns
from audiopipe.catalog.read import BACKENDS, Catalog, read_catalog
from audiopipe.catalog.tables import read_names, table_format
from audiopipe.config import RunConfig
from audiopipe.config.columns import parse_pairs
from audiopipe.errors import CatalogError
from audiopipe.redaction import redact_address

__all__ = ["Inspection", "inspect_catalog"]

CHECKED_FILES = 1000  # of a local catalog, whether they exist
MAX_SEGMENT_S: float = RunConfig.model_fields["max_segment_s"].default
SHOWN_ROWS, SHOWN_NAMES = 3, 8
SHOWN_TEXT = 60  # characters
PROBED_FILES = 5  # of those without a known duration
TABLE_NAMES = {"parquet": "Parquet table", "pq": "Parquet table", "csv": "CSV table", "tsv": "TSV table"}
SUGGESTED = {"columns", "language_from"}


@dataclass
class Inspection:
    """Describes an address: the files, languages, columns and segments that a run would take.

    Attributes:
        kind: the format, in words.
        details: texts by their labels, in the order in which they are shown.
        rows: the first files, each with id, language, address and text.
        problems: what is wrong or missing, with what to do.
        parameters: those of the command that processes it, without the output; empty if there is none.
        commands: other commands to go on with.
    """

    address: str
    kind: str
    details: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def inspect_catalog(address: str, parameters: Mapping[str, Any]) -> Inspection:
    """Describe a catalog. One that cannot be read with the given parameters is read with suggested ones.

    Args:
        parameters: those of `RunConfig` that say how it is read: `columns`, `language_from`, `source_prefix`, …

    Raises:
        StoreError, PermanentStoreError, TransientError: the store or the database does not answer.
    """
    is_database = address.partition("://")[0] in BACKENDS
    kind = None if is_database else find_format(address)
    result = Inspection(address, _describe_kind(address, kind))
    given = {name: value for name, value in parameters.items() if value is not None}
    names: list[str] = []
    try:
        names = read_names(address) if kind is Format.TABLE else []
        config, catalog = _read(result, address, given, names)
    except CatalogError as error:
        result.kind = result.kind if names or kind is not Format.FOLDER else "no catalog"
        # The address is shown above; one of a file in it is not.
        result.problems.append(re.sub(rf"^catalog ({re.escape(address)}[:,] )?", "", str(error)))
        if names:
            result.details["columns"] = ", ".join(names)
        return result
    suggested = SUGGESTED & config.model_fields_set
    values = {name: getattr(config, name) for name in RunConfig.model_fields if name in given or name in suggested}
    result.parameters = {"catalog": address} | {name: str(value) for name, value in values.items()}
    layout = choose_layout(address, names, dict(parse_pairs(config.columns))) if names else None
    if layout is not None and layout.name:
        result.kind = f"{layout.name} ({result.kind})"
    _describe_files(result, catalog)
    _describe_segments(result, catalog)
    if layout is not None:
        _describe_columns(result, layout, names, catalog)
    elif catalog.kept_columns:
        result.details["kept"] = ", ".join(name for name, _ in catalog.kept_columns)
    if kind is Format.FOLDER:
        _name_tables(result, address)
    result.rows = [_show(row) for row in catalog.table.slice(0, SHOWN_ROWS).to_pylist()]
    return result


def _read(
    result: Inspection, address: str, given: Mapping[str, Any], names: Sequence[str]
) -> tuple[RunConfig, Catalog]:
    """Read a catalog; a table that lacks columns with the columns that its names suggest."""
    config = RunConfig.of(catalog=address, output="output", **given)
    try:
        return config, read_catalog(config)
    except CatalogError:
        suggested = suggest_columns(names, dict(parse_pairs(config.columns))) if names else None
        if suggested is None:
            raise
        added: dict[str, Any] = {"columns": suggested}
        if "language" not in dict(parse_pairs(suggested)) and "language" not in names and not config.language_from:
            added["language_from"] = UNDETERMINED
        config = RunConfig.of(**{"catalog": address, "output": "output", **given, **added})
        catalog = read_catalog(config)
        result.problems.append("its columns are guessed by their names; check them below")
        return config, catalog


def _describe_kind(address: str, kind: Format | None) -> str:
    if kind is None:
        return "table of a database"
    if kind is Format.TABLE:
        return TABLE_NAMES.get(table_format(address) or "", "JSON table")
    return "file" if kind is Format.FOLDER and os.path.isfile(address) else str(kind)


def _describe_files(result: Inspection, catalog: Catalog) -> None:
    """Describe number, sizes, durations and languages, and check that local files exist."""
    table = catalog.table
    uris = table["uri"].slice(0, CHECKED_FILES).to_pylist()
    local = [uri for uri in uris if "://" not in uri]
    missing = [uri for uri in local if not os.path.exists(uri)]
    count = f"{table.num_rows:,}"
    size = pc.sum(table["size_bytes"]).as_py()
    if size is None and local and table.num_rows <= CHECKED_FILES:
        size = sum(os.path.getsize(uri) for uri in local if uri not in missing) or None
    result.details["files"] = count if size is None else f"{count}, {size / 1e6:,.1f} MB"
    if missing:
        share = "all" if len(missing) == len(local) else f"{len(missing)} of the first {len(local)}"
        result.problems.append(
            f"{share} files do not exist, for example {missing[0]}; correct the paths, or give --source-prefix"
        )
    known = table["duration_s"].drop_null()
    if len(known):
        suffix = "" if len(known) == table.num_rows else f" ({len(known):,} of {table.num_rows:,} files)"
        result.details["hours"] = f"{(pc.sum(known).as_py() or 0) / 3600:.2f}{suffix}"
    elif size is not None and (seconds := _estimate_duration([uri for uri in local if uri not in missing], size)):
        result.details["hours"] = f"about {seconds / 3600:.2f}, by the durations of some files"
    languages = Counter(table["language"].to_pylist())
    result.details["languages"] = ", ".join(f"{name} {count:,}" for name, count in languages.most_common(SHOWN_NAMES))
    if UNDETERMINED in languages:
        result.problems.append(
            f"the language of {languages[UNDETERMINED]:,} files is unknown ({UNDETERMINED}): give one for all, as in "
            f"--language-from en, or --language-from {FOLDER} for the name of the first folder"
        )


def _estimate_duration(paths: Sequence[str], total_bytes: int) -> float | None:
    """Estimate the seconds of audio of local files by the headers of some; None if these do not say it, as of tars."""
    import av  # noqa: PLC0415 - not needed where a catalog has durations

    step = max(1, len(paths) // PROBED_FILES)
    seconds = probed_bytes = 0.0
    for path in paths[::step][:PROBED_FILES]:
        with suppress(OSError, av.FFmpegError), av.open(path) as container:
            if container.duration is not None and not path.endswith(".tar"):
                seconds += container.duration / av.time_base
                probed_bytes += os.path.getsize(path)
    return seconds * total_bytes / probed_bytes if probed_bytes else None


def _describe_segments(result: Inspection, catalog: Catalog) -> None:
    """Describe where the times of segments come from, and how many have a text and a speaker."""
    table = catalog.table
    rows = table["segments"].to_pylist() if "segments" in table.column_names else []
    bodies = [json.loads(row) for row in rows if row is not None]
    entries = [entry for body in bodies if isinstance(body, list) for entry in body]
    whole = [body for body in bodies if isinstance(body, dict) and body.get("text")]
    parts = []
    for items, words in ((entries, "of the catalog"), (whole, "that are whole files")):
        if items:
            texts, speakers = (sum(bool(item.get(name)) for item in items) for name in ("text", "speaker"))
            parts.append(f"{len(items):,} {words}, {texts:,} with text and {speakers:,} with speaker")
    durations = zip(rows, table["duration_s"].to_pylist(), strict=bool(rows))
    count = sum(
        row is not None and row.startswith("{") and (seconds or 0) > MAX_SEGMENT_S for row, seconds in durations
    )
    if count:
        result.problems.append(
            f"{count:,} files with a text are longer than max_segment_s ({MAX_SEGMENT_S:g}) and will be dropped: give "
            "the times of their segments, or leave the text out, as in --columns text=none"
        )
    if entries:
        seconds = sum(entry["end"] - entry["start"] for entry in entries if "end" in entry)
        parts.append(f"{seconds / 3600:.2f} h in segments")
    others = table.num_rows - sum(1 for body in bodies if isinstance(body, list) or body.get("text"))
    if others:
        with_sidecars = table.num_rows - table["sidecars"].null_count
        sidecars = f" ({with_sidecars:,} files have some next to them)" if with_sidecars else ""
        subject = f"of {others:,} files " if parts else ""
        parts.append(
            f"{subject}at the times of JSON or captions{sidecars}, else where there is speech; with --segments file, "
            "each file is one segment"
        )
    result.details["segments"] = "; ".join(parts)


def _describe_columns(result: Inspection, layout: Layout, names: Sequence[str], catalog: Catalog) -> None:
    pairs = [f"{role} = {column}" if role != column else role for role, column in layout.roles.items()]
    result.details["columns"] = ", ".join([*pairs, *(["start_s = offset"] if layout.has_offsets else [])])
    kept = {name for name, _ in catalog.kept_columns}
    unused = [name for name in names if name not in layout.used and name not in kept]
    if kept:
        result.details["kept"] = ", ".join(sorted(kept))
    if unused:
        result.details["not used"] = f"{', '.join(unused)} (--keep-columns adds them to segments)"


def _name_tables(result: Inspection, address: str) -> None:
    """Name tables in a folder of files, because one of them may have the texts."""
    try:
        names = sorted(name for name in os.listdir(address) if table_format(name) and not name.startswith("."))
    except OSError:
        return
    if names:
        listed = ", ".join(names[:SHOWN_NAMES])
        result.problems.append(
            f"it has tables, which a folder of files does not use: {listed}; if one lists the files, inspect it"
        )
        result.commands = [f"audiopipe inspect {shlex.quote(os.path.join(address, name))}" for name in names[:1]]


def _show(row: Mapping[str, Any]) -> dict[str, str]:
    body = json.loads(row.get("segments") or "{}")
    first = body[0] if isinstance(body, list) and body else body
    texts = {"text": first.get("text"), "speaker": first.get("speaker")} if isinstance(first, dict) else {}
    shown = {"id": row["video_id"], "language": row["language"], "file": redact_address(row["uri"])}
    if isinstance(first, dict) and "start" in first:
        shown["first segment"] = f"{first['start']:g} to {first.get('end', 'the end')} s"
    return shown | {name: _shorten(str(value)) for name, value in texts.items() if value}


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 1]}…"
