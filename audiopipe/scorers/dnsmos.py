"""The scorer `dnsmos`: ratings of listeners as Microsoft's DNSMOS networks predict them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from audiopipe.extras import require_extra
from audiopipe.scorers.scorer import Column, Scorer, ScorerBatch, Values

if TYPE_CHECKING:
    import torch

    from audiopipe.models.dnsmos import Dnsmos as Networks

__all__ = ["Dnsmos", "HalfDnsmos"]

WORST, BEST = 1.0, 5.0  # of the scale of ratings


class Dnsmos(Scorer):
    """Predicted ratings from 1 to 5: the quality of speech, of the background and overall.

    The values are those of `speechmos`. It repeats short segments until they fill a window of 9.01 s, and averages the
    windows of long ones, which start every second, without those that start at seconds 7 to 23.
    """

    name = "dnsmos"
    version = "1"
    sample_rate = 16_000
    columns = (
        Column("dnsmos_sig", "float", "MOS", "predicted quality of the speech itself (DNSMOS P.835 SIG)", WORST, BEST),
        Column("dnsmos_bak", "float", "MOS", "predicted quality of the background (DNSMOS P.835 BAK)", WORST, BEST),
        Column("dnsmos_ovrl", "float", "MOS", "predicted overall quality (DNSMOS P.835 OVRL)", WORST, BEST),
        Column("dnsmos_p808", "float", "MOS", "predicted overall quality (DNSMOS P.808)", WORST, BEST),
    )
    _networks: Networks

    def load(self, device: torch.device) -> None:
        """Read the weights of both networks.

        Raises:
            MissingExtra: `speechmos`, which has the weights, is not installed.
        """
        from audiopipe.models.dnsmos import load_dnsmos  # noqa: PLC0415 - imports torch

        with require_extra("dnsmos", f"the scorer '{self.name}'"):
            self._networks = load_dnsmos(device, half=self._is_half(device))

    def score(self, batch: ScorerBatch) -> Mapping[str, Values]:
        """Predict the ratings of each segment; a segment with samples that are not numbers has none."""
        assert batch.samples is not None
        waves = [samples[0, :length] for samples, length in zip(batch.samples, batch.lengths, strict=True)]
        ratings = self._networks(waves).float().numpy()
        return {column.name: ratings[:, number] for number, column in enumerate(self.columns)}

    def _is_half(self, device: torch.device) -> bool:
        return False


class HalfDnsmos(Dnsmos):
    """Ratings within 0.01 of those of `dnsmos`, by convolutions in float16 on a GPU; on a CPU they are equal."""

    name = "dnsmos_half"

    def _is_half(self, device: torch.device) -> bool:
        return device.type != "cpu"
