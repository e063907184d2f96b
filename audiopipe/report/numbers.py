"""The numbers of a run or dataset that several pages show: each is computed and formatted here and nowhere else.

They come from the commits (`Totals`) or from the ledger (`RunTotals`), which agree. A video is *done* if it is in the
dataset; it is *processed* if it is done or has failed permanently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiopipe.report.text import format_number, format_percent

if TYPE_CHECKING:
    import pandas as pd

    from audiopipe.dataset.totals import Totals
    from audiopipe.ledger.snapshot import LanguageSnapshot, RunTotals

__all__ = ["RunNumbers", "format_hours", "format_share", "format_times", "medians"]


def format_share(part: int, whole: int) -> str:
    """Format a count as `30 / 42`."""
    return f"{part:,} / {whole:,}"


def format_hours(seconds: float) -> str:
    """Format seconds as hours, without the unit: two decimals, none from 100 h on."""
    return format_number(seconds / 3600, 2 if seconds < 360_000 else 0)


def format_times(audio_s: float, busy_s: float) -> str:
    """Format a speed as a multiple of real time: `408 x`; one decimal below 10."""
    if busy_s <= 0:
        return "–"
    return f"{format_number(audio_s / busy_s, 0 if audio_s >= 10 * busy_s else 1)} x"


def medians(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.Series:
    """Return the medians of metrics among the kept segments; missing values do not count."""
    result: pd.Series = rows[rows["kept"]][list(metrics)].median()
    return result


@dataclass(frozen=True)
class RunNumbers:
    """The sums of a run or of one language.

    Attributes:
        videos: the videos of the plan, or of the committed shards where only these are known.
        busy_s: seconds in which at least one shard was being processed.
    """

    videos: int
    videos_processed: int
    videos_failed: int
    segments: int
    segments_kept: int
    audio_s: float
    kept_s: float
    busy_s: float = 0.0

    @classmethod
    def of_totals(cls, totals: Totals) -> RunNumbers:
        """Return the numbers of committed shards."""
        return cls(
            totals.videos,
            totals.videos,
            totals.videos_failed,
            totals.segments,
            totals.segments_kept,
            totals.audio_s,
            totals.kept_s,
            totals.busy_s,
        )

    @classmethod
    def of_ledger(cls, totals: RunTotals | LanguageSnapshot, busy_s: float = 0.0) -> RunNumbers:
        """Return the numbers of a ledger."""
        return cls(
            totals.total_videos,
            totals.processed,
            totals.failed,
            totals.segments,
            totals.kept,
            totals.audio_s,
            totals.kept_s,
            busy_s,
        )

    @property
    def videos_done(self) -> int:
        """The videos that are in the dataset."""
        return self.videos_processed - self.videos_failed

    @property
    def done(self) -> str:
        """The videos that are in the dataset, of all: `30 / 42`."""
        return format_share(self.videos_done, self.videos)

    @property
    def processed_share(self) -> str:
        """The share of the videos that need no more work."""
        return format_percent(self.videos_processed, self.videos)

    @property
    def failed_share(self) -> str:
        """The share of the processed videos that failed permanently."""
        return format_percent(self.videos_failed, self.videos_processed)

    @property
    def kept(self) -> str:
        """The kept segments of all: `553 / 605`."""
        return format_share(self.segments_kept, self.segments)

    @property
    def kept_share(self) -> str:
        """The share of the segments that was kept."""
        return format_percent(self.segments_kept, self.segments)

    @property
    def hours(self) -> str:
        """The hours of audio."""
        return format_hours(self.audio_s)

    @property
    def hours_kept(self) -> str:
        """The hours of kept segments."""
        return format_hours(self.kept_s)

    @property
    def times_real_time(self) -> str:
        """The speed as a multiple of real time."""
        return format_times(self.audio_s, self.busy_s)

    def index_values(self) -> dict[str, float]:
        """Return the counts that the index of reports lists."""
        return {
            "videos": self.videos_processed,
            "failed": self.videos_failed,
            "segments": self.segments,
            "kept": self.segments_kept,
            "hours_kept": self.kept_s / 3600,
        }
