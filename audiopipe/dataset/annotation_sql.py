"""SQL of DuckDB for tables of annotations: how files are read, their types, and the key of a segment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from audiopipe.dataset.sql import quote_name
from audiopipe.scorers.scorer import Column, ColumnType

__all__ = ["ID", "READERS", "SEPARATOR", "column_type_of", "id_sql", "value_sql"]

# A text that looks like a date stays as it is: a CSV has no type for dates, and JSON a format that no text has.
CSV = "header=true, sample_size=-1, auto_type_candidates=['BOOLEAN', 'BIGINT', 'DOUBLE', 'VARCHAR']"
JSON = "format='newline_delimited', sample_size=-1, dateformat='%Y#', timestampformat='%Y#'"
READERS = {
    "parquet": "read_parquet($path)",
    "pq": "read_parquet($path)",
    "csv": f"read_csv($path, {CSV}, delim=',')",
    "tsv": f"read_csv($path, {CSV}, delim='\t')",
    "jsonl": f"read_json($path, {JSON})",
    "ndjson": f"read_json($path, {JSON})",
}
ID = '"audiopipe id"'  # says which segment a row is for; files have no column of this name
SEPARATOR = "\n"

INTEGER = r"U?(?:TINY|SMALL|BIG|HUGE)?INT(?:EGER)?"
FRACTION = r"FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)"
TYPES: tuple[tuple[re.Pattern[str], ColumnType], ...] = (
    (re.compile("BOOLEAN"), "bool"),
    (re.compile(INTEGER), "int"),
    (re.compile(FRACTION), "float"),
    (re.compile(r"VARCHAR|ENUM\(.*\)|UUID|DATE|TIME.*|\"NULL\"", re.DOTALL), "string"),
    (re.compile(rf"(?:{INTEGER}|{FRACTION})\[\d*\]"), "floats"),
)


def column_type_of(kind: str) -> ColumnType | None:
    """Return the type of a column with a type of DuckDB, None if there is none."""
    return next((column_type for pattern, column_type in TYPES if pattern.fullmatch(kind)), None)


def id_sql(keys: Sequence[str]) -> str:
    """Return the SQL of the text that identifies a segment, from the columns of its key."""
    parts = [f"CAST({quote_name(name)} AS BIGINT)" if name == "segment" else quote_name(name) for name in keys]
    return f" || '{SEPARATOR}' || ".join(f"CAST({part} AS VARCHAR)" for part in parts)


def value_sql(column: Column) -> str:
    """Return the SQL of a column's values; a number that is not finite does not exist."""
    name, alias = f"rows.{quote_name(column.name)}", quote_name(column.name)
    kinds = {"float": "FLOAT", "int": "INTEGER", "bool": "BOOLEAN", "string": "VARCHAR", "floats": "FLOAT[]"}
    value = f"CAST({name} AS {kinds[column.type]})"
    return (
        f"CASE WHEN isfinite({value}) THEN {value} END AS {alias}" if column.type == "float" else f"{value} AS {alias}"
    )
