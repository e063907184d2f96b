"""The plan's own arithmetic, to be put beside ours."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ThePlan"]


@dataclass(frozen=True)
class ThePlan:
    """Figures of plan.md; the properties redo its sums from them."""

    videos: int = 500_000
    deadline_h: float = 24.0
    today_videos_per_min: float = 7.56
    speedup: float = 11.0
    nodes: int = 8
    usd_hour: float = 1.00
    supabase_usd: float = 25.0
    source_tb: float = 5.0

    @property
    def today_days(self) -> float:
        return self.videos / self.today_videos_per_min / 60 / 24

    @property
    def needed_videos_per_min(self) -> float:
        return self.videos / self.deadline_h / 60

    @property
    def node_videos_per_min(self) -> float:
        return self.today_videos_per_min * self.speedup

    @property
    def nodes_needed(self) -> int:
        return math.ceil(self.needed_videos_per_min / self.node_videos_per_min)

    @property
    def buffer(self) -> float:
        """What its eight nodes can do beyond what is needed; the plan says 2.3, its own figures give 1.9."""
        return self.nodes * self.node_videos_per_min / self.needed_videos_per_min

    @property
    def hours(self) -> float:
        """What its nodes would take, had they nothing to wait for."""
        return self.videos / (self.nodes * self.node_videos_per_min) / 60

    @property
    def usd(self) -> float:
        return self.nodes * self.usd_hour * self.deadline_h + self.supabase_usd

    def source_kbps(self, minutes: float) -> float:
        """Of the videos' audio, if so much is read in all."""
        return self.source_tb * 1e9 * 8 / (self.videos * minutes * 60)
