"""Make raw rows of corpora that are several files: data folders of Kaldi, manifests of Lhotse, and audio folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from audiopipe.catalog.files import UNDETERMINED, language_of_path
from audiopipe.catalog.kaldi import WAV_SCP, read_kaldi
from audiopipe.catalog.kept_columns import ALL, choose_kept, convert_kept, is_kept, kept_name, with_extras
from audiopipe.catalog.layout import LOCATION
from audiopipe.catalog.lhotse import read_lhotse
from audiopipe.catalog.read_errors import first_line
from audiopipe.catalog.segment_rows import Recording, recordings_table
from audiopipe.catalog.table_rows import (
    SEARCHED_ROWS,
    TablePart,
    find_base,
    json_schema,
    json_values,
    make_rows,
    read_part,
    set_language,
)
from audiopipe.catalog.tables import base_url, infer_type
from audiopipe.catalog.validate import RawCatalog
from audiopipe.config import RunConfig
from audiopipe.config.columns import parse_pairs
from audiopipe.errors import CatalogError

__all__ = ["read_audio_folder", "read_recordings"]


def read_recordings(url: str, is_kaldi: bool, config: RunConfig) -> RawCatalog:
    """Read the recordings of a data folder of Kaldi, or of manifests of Lhotse, with their segments.

    Raises:
        CatalogError: they cannot be read; `columns` is set, which they do not need.
    """
    if config.columns is not None:
        raise CatalogError(f"catalog {url}: its format says what its columns are; leave --columns out")
    if is_kaldi:
        address = url if url.endswith(f"/{WAV_SCP}") or url == WAV_SCP else f"{url.rstrip('/')}/{WAV_SCP}"
        recordings = read_kaldi(address.removesuffix(WAV_SCP) or "./")
    else:
        address = url
        recordings = read_lhotse(url)
    recordings, kept = _choose_values(url, recordings, has_types=not is_kaldi, config=config)
    folder, is_local = base_url(address)
    base = find_base(folder, is_local, [row.location for row in recordings[:SEARCHED_ROWS]])
    rows = set_language(recordings_table(recordings, has_languages=True), config.language_from, UNDETERMINED, base)
    return RawCatalog(url, rows, base, is_local, segment_columns=tuple(zip(kept.names, kept.types, strict=True)))


def _choose_values(
    source: str, recordings: Sequence[Recording], has_types: bool, config: RunConfig
) -> tuple[list[Recording], pa.Schema]:
    """Return recordings whose segments have the values of `keep_columns` only, and the types of these."""
    entries = [entry for recording in recordings for entry in recording.entries]
    chosen: dict[str, str] = {}
    pairs = dict(parse_pairs(config.keep_columns))
    if pairs:
        names = list(dict.fromkeys(name for entry in entries for name in entry.values))
        chosen = choose_kept(source, names, (), pairs)
    try:
        columns = {name: pa.array([entry.values.get(key) for entry in entries]) for name, key in chosen.items()}
    except pa.ArrowException as error:
        raise CatalogError(f"catalog {source}: a column to keep has values of several types: {error}") from None
    table = convert_kept(source, {name: pa.chunked_array([c]) for name, c in columns.items()}, has_types, pairs == ALL)
    values = iter(json_values(table) if chosen else [{}] * len(entries))
    return [
        replace(recording, entries=[replace(entry, values=next(values)) for entry in recording.entries])
        for recording in recordings
    ], json_schema(table)


def read_audio_folder(url: str, metadata: Sequence[str], config: RunConfig) -> RawCatalog:
    """Read the metadata of an audio folder of Hugging Face; ids and paths are relative to the folder.

    Args:
        metadata: the addresses of its files.

    Raises:
        CatalogError: one cannot be read, or two have a column with values of different types.
    """
    parts = [_below(url, address, read_part(address, config)) for address in metadata]
    try:
        part = _join(parts)
    except pa.ArrowException as error:
        raise CatalogError(f"catalog {url}: the files of its metadata differ: {first_line(error)}") from None
    raw = make_rows(url, part, config, *base_url(f"{url.rstrip('/')}/metadata"))
    if config.language_from is not None:
        return raw
    pairs = zip(raw.table[LOCATION].to_pylist(), raw.table["language"].to_pylist(), strict=True)
    languages = [language_of_path(path or "") if name == UNDETERMINED else name for path, name in pairs]
    index = raw.table.column_names.index("language")
    return replace(raw, table=raw.table.set_column(index, "language", pa.array(languages, pa.string())))


def _below(url: str, address: str, part: TablePart) -> TablePart:
    """Return a file of metadata with ids and paths relative to the folder at an address."""
    folder = address.removeprefix(url.rstrip("/") + "/").rpartition("/")[0]
    prefix = f"{folder}/" if folder else ""
    rows = part.rows
    for name in {"youtube_id", LOCATION}.intersection(rows.column_names):
        values: list[Any] = rows[name].to_pylist()
        is_absolute = [value is None or "://" in value or value[:1] == "/" for value in values]
        values = [item if keep else prefix + item for item, keep in zip(values, is_absolute, strict=True)]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    return replace(part, rows=rows)


def _join(parts: Sequence[TablePart]) -> TablePart:
    """Join the files of a catalog; a column of those without types gets the type that all its texts have."""
    texts, typed = (
        [with_extras(part.rows, pa.table(dict(part.kept))) for part in parts if part.has_types is has_types]
        for has_types in (False, True)
    )
    if texts:
        table = pa.concat_tables(texts, promote_options="permissive")
        columns = [infer_type(table[name]) if is_kept(name) else table[name] for name in table.column_names]
        typed.append(pa.table(columns, names=table.column_names))
    table = pa.concat_tables(typed, promote_options="permissive")
    kept = {name: table[kept_name(name)] for name in dict.fromkeys(name for part in parts for name in part.kept)}
    rows = table.select([name for name in table.column_names if not is_kept(name)])
    return replace(parts[0], rows=rows, kept=kept, has_types=True)
