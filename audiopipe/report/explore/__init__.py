"""One video through every stage of the pipeline, with all intermediate results.

`video` chooses the video and `trace` takes it through the stages without changing the output. The other modules show
the trace: `stages` the stages and the segments, `waveforms` and `spectra` one segment, `results` the output.
"""

from audiopipe.report.explore.results import comparison, encoding, records
from audiopipe.report.explore.spectra import noise_floor, resampling, spectrogram, spectrum
from audiopipe.report.explore.stages import headline, metrics, segments, source
from audiopipe.report.explore.trace import Trace, trace_video
from audiopipe.report.explore.video import PARAMETERS
from audiopipe.report.explore.waveforms import k_weighting, loudness, waveform
from audiopipe.report.page import Html, grid

__all__ = [
    "PARAMETERS",
    "Trace",
    "comparison",
    "encoding",
    "headline",
    "k_weighting",
    "loudness",
    "metrics",
    "noise_floor",
    "records",
    "resampling",
    "segments",
    "source",
    "spectrogram",
    "spectrum",
    "trace_video",
    "two_columns",
    "waveform",
]


def two_columns(*pieces: Html) -> Html:
    """Arrange pieces in two columns where the window is wide enough."""
    return grid((Html(f"<div>{piece.markup}</div>") for piece in pieces), two=True)
