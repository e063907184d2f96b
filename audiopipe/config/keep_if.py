"""Parse the condition of `keep_if` over the columns that a segment has while it is processed."""

from __future__ import annotations

from collections.abc import Sequence

from audiopipe.conditions import Condition, parse_condition
from audiopipe.errors import ConfigError
from audiopipe.scorers.registry import stored_columns
from audiopipe.scorers.scorer import Scorer

__all__ = ["SEGMENT_COLUMNS", "parse_keep_if"]

# The columns next to those of scorers, with DuckDB's types.
SEGMENT_COLUMNS = {
    "video_id": "VARCHAR",
    "language": "VARCHAR",
    "start_s": "DOUBLE",
    "end_s": "DOUBLE",
    "duration_s": "DOUBLE",
    "text": "VARCHAR",
    "speaker": "VARCHAR",
    "sound_event": "BOOLEAN",
}
TYPES = {"float": "FLOAT", "int": "INTEGER", "bool": "BOOLEAN", "string": "VARCHAR", "floats": "FLOAT[]"}


def parse_keep_if(text: str, scorers: Sequence[Scorer]) -> Condition:
    """Parse a condition over the columns of segments and scorers.

    Raises:
        ConfigError: the condition is not valid, or has a column that no scorer of the run has.
    """
    columns = SEGMENT_COLUMNS | {column.name: TYPES[column.type] for column in stored_columns(scorers)}
    try:
        return parse_condition(text, columns)
    except ConfigError as error:
        raise ConfigError(f"keep_if: {error}; see the columns in `audiopipe explain` and choose `scorers`") from None
