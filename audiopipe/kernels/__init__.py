"""Audio metrics and resampling, batched, exact and fast: plain torch functions, the same code on CPU and GPU.

Audio is [batch, channels, samples] in int16, float32 or float64; `lengths` [batch] says how many samples of each item
are valid. What is beyond them never changes a result. `measure`, `resample` and `measure_and_resample` also take a list
of items [channels, samples], each of its own length.
"""

from audiopipe.kernels.levels import Levels, levels
from audiopipe.kernels.loudness import Loudness, integrated_loudness, loudness
from audiopipe.kernels.measure import METRICS, Metric, Metrics, measure, measure_and_resample
from audiopipe.kernels.resample import resample, resampled_length
from audiopipe.kernels.spectral import Spectral, spectral

__all__ = [
    "METRICS",
    "Levels",
    "Loudness",
    "Metric",
    "Metrics",
    "Spectral",
    "integrated_loudness",
    "levels",
    "loudness",
    "measure",
    "measure_and_resample",
    "resample",
    "resampled_length",
    "spectral",
]
