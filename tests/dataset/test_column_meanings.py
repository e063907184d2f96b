"""Every column of an output's tables has a meaning, and no other has."""

from audiopipe.dataset import schema
from audiopipe.dataset.column_meanings import SEGMENT_COLUMNS, SELECTION_COLUMNS, VIDEO_COLUMNS


def test_every_column_that_all_outputs_have_has_a_meaning() -> None:
    assert list(SEGMENT_COLUMNS) == [*schema.COLUMNS_BEFORE_SCORES.names, *schema.COLUMNS_AFTER_SCORES.names]
    assert list(SELECTION_COLUMNS) == schema.SELECTION_COLUMNS.names
    assert sorted(VIDEO_COLUMNS) == sorted(schema.VIDEOS_SCHEMA.names)
