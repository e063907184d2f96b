"""Choose the columns of a catalog that segments get, and give each a type that Parquet and JSON have.

They travel in raw rows under the names of `kept_name`, in the plan as a struct (`KEPT_FIELD`), and to segments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from audiopipe.catalog.layout import similar_name
from audiopipe.catalog.tables import infer_type
from audiopipe.config.columns import ALL_COLUMNS, join_columns
from audiopipe.errors import CatalogError

__all__ = ["KEPT_FIELD", "choose_kept", "convert_kept", "is_kept", "kept_name", "kept_struct", "with_extras"]

PREFIX = "column:"
KEPT_FIELD = "columns"  # of a plan: the values of a video
ALL = {ALL_COLUMNS: ALL_COLUMNS}


def kept_name(name: str) -> str:
    """Return the name in raw rows of a column that is kept."""
    return PREFIX + name


def is_kept(name: str) -> bool:
    """Check whether a column of raw rows is one that is kept."""
    return name.startswith(PREFIX)


def with_extras(rows: pa.Table, extras: pa.Table) -> pa.Table:
    """Return raw rows with columns to keep."""
    for name in extras.column_names:
        rows = rows.append_column(kept_name(name), extras[name])
    return rows


def choose_kept(source: str, names: Sequence[str], used: Iterable[str], kept: Mapping[str, str]) -> dict[str, str]:
    """Return the columns to keep by their new names.

    Args:
        names: the columns of the catalog.
        used: those that a run uses itself, which 'all' leaves out.
        kept: the pairs of the config's `keep_columns`.

    Raises:
        CatalogError: the catalog does not have a column.
    """
    if kept == ALL and ALL_COLUMNS not in names:
        taken = set(used)
        return {name: name for name in names if name not in taken}
    for column in kept.values():
        if column not in names:
            similar = similar_name(column, names)
            hint = f" (did you mean {similar!r}?)" if similar else ""
            raise CatalogError(
                f"catalog {source} has no column {column!r}{hint}, which --keep-columns names; it has "
                f"{', '.join(names) or 'none'}"
            )
    return dict(kept)


def convert_kept(source: str, columns: Mapping[str, pa.ChunkedArray], has_types: bool, is_all: bool) -> pa.Table:
    """Return columns with the types that segments can have, under their new names.

    Args:
        has_types: whether the catalog's format has types; otherwise texts that are all numbers or flags become such.
        is_all: leave out a column whose type segments cannot have.

    Raises:
        CatalogError: a column has such a type.
    """
    converted = {}
    for name, column in columns.items():
        kind = storable_type(column.type)
        if kind is not None:
            # Times have microseconds; the nanoseconds below them are cut off.
            values = column.cast(kind, safe=not pa.types.is_timestamp(kind))
            converted[name] = values if has_types or kind != pa.string() else infer_type(values)
        elif not is_all:
            names = [(other, other) for other, values in columns.items() if storable_type(values.type) is not None]
            fitting = join_columns(names, shorten=True)
            raise CatalogError(
                f"catalog {source}, column {name!r}: segments cannot have values of type {column.type}; they can have "
                f"texts, numbers, flags, dates and lists of these, as --keep-columns {fitting}"
            )
    return pa.table(converted)


def storable_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type that a column of segments has for a column of a catalog; None if there is none."""
    if pa.types.is_dictionary(kind):
        return storable_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = storable_type(kind.value_type)
        return None if value is None or pa.types.is_nested(value) or pa.types.is_temporal(value) else pa.list_(value)
    if pa.types.is_float16(kind):
        return pa.float32()
    is_plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return kind if is_plain or pa.types.is_string(kind) or pa.types.is_date32(kind) else None


def kept_struct(rows: pa.Table) -> pa.ChunkedArray | None:
    """Return the kept columns of raw rows as one column of structs; None if there are none."""
    names = [name for name in rows.column_names if is_kept(name)]
    if not names:
        return None
    whole = rows.select(names).combine_chunks()
    arrays = [column.chunk(0) if column.num_chunks else pa.nulls(0, column.type) for column in whole.columns]
    fields = [pa.field(name.removeprefix(PREFIX), array.type) for name, array in zip(names, arrays, strict=True)]
    return pa.chunked_array([pa.StructArray.from_arrays(arrays, fields=fields)])
