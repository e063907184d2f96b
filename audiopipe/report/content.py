"""Show the content of a dataset: hours, durations, texts, speakers, videos and channels."""

from __future__ import annotations

from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.durations import durations
from audiopipe.report.page import Html
from audiopipe.report.sources import videos_and_channels
from audiopipe.report.speakers import speakers
from audiopipe.report.texts import texts
from audiopipe.report.transcripts import transcripts

__all__ = ["content"]


def content(tables: DatasetTables) -> Html:
    """Show what the dataset contains; parts that need a text, a label or a scorer are left out where there is none."""
    parts = (durations, videos_and_channels, speakers, texts, transcripts)
    return page.join(*(part(tables) for part in parts))
