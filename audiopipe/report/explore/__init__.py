"""One video through every stage, each intermediate shown: to learn from a good one, to mend a bad one.

`find` chooses the video, `trace` takes it through the stages once more without touching the output, and the rest draws:
`way` the stages and the segments, `sound` and `spectra` one segment, `written` what comes out of it.
"""

from audiopipe.report.explore.find import PARAMETERS
from audiopipe.report.explore.sound import loudness, waveform, weighting
from audiopipe.report.explore.spectra import noise, resampled, spectrogram, spectrum
from audiopipe.report.explore.trace import Trace, trace_video
from audiopipe.report.explore.way import headline, measured, segments, source
from audiopipe.report.explore.written import compared, encoded, records
from audiopipe.report.page import Html, grid

__all__ = [
    "PARAMETERS",
    "Trace",
    "compared",
    "encoded",
    "headline",
    "loudness",
    "measured",
    "noise",
    "records",
    "resampled",
    "segments",
    "side_by_side",
    "source",
    "spectrogram",
    "spectrum",
    "trace_video",
    "waveform",
    "weighting",
]


def side_by_side(*pieces: Html) -> Html:
    """Pictures two to a row where the window is wide enough."""
    return grid((Html(f"<div>{piece.markup}</div>") for piece in pieces), two=True)
