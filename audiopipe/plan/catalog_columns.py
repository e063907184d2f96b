"""Bring the catalog's further columns into the types that the plan has them with.

A format without types may give a column another type when the catalog is read again, for example once it has a text
among its numbers. All segments of a dataset have the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from audiopipe.catalog.kept_columns import KEPT_FIELD
from audiopipe.errors import CatalogError

__all__ = ["conform"]


def conform(rows: pa.Table, planned: Iterable[pa.Table]) -> pa.Table:
    """Return rows of a catalog with the types of the plan's tables.

    Raises:
        CatalogError: a value cannot have the type that the plan has for its column.
    """
    kind = next((table.schema.field(KEPT_FIELD).type for table in planned if KEPT_FIELD in table.column_names), None)
    if kind is None or KEPT_FIELD not in rows.column_names or rows.schema.field(KEPT_FIELD).type == kind:
        return rows
    values = rows[KEPT_FIELD].combine_chunks()
    arrays = []
    for field in kind:
        try:
            arrays.append(values.field(field.name).cast(field.type))
        except (pa.ArrowException, KeyError) as error:
            raise CatalogError(
                f"the catalog's column {field.name!r} was planned as {field.type} and no longer is: {error}; correct "
                "it, or start with an empty output"
            ) from None
    struct = pa.StructArray.from_arrays(arrays, fields=list(kind))
    return rows.set_column(rows.column_names.index(KEPT_FIELD), KEPT_FIELD, struct)
