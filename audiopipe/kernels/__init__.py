"""Audio metrics and resampling as batched torch functions that run the same code on CPU and GPU.

Audio is [batch, channels, samples] in int16 with full scale 32768, or in float32 or float64 with full scale 1.0.
`lengths` [batch] is the number of valid samples of each item; samples beyond it never change a result. `measure`,
`resample` and `measure_and_resample` also take a list of items [channels, samples] of different lengths.
"""

from audiopipe.kernels.audio import INT16_FULL_SCALE
from audiopipe.kernels.levels import Levels, levels
from audiopipe.kernels.loudness import Loudness, integrated_loudness, loudness
from audiopipe.kernels.measure import Metrics, measure, measure_and_resample
from audiopipe.kernels.resample import resample, resampled_length
from audiopipe.kernels.spectral import Spectral, spectral
from audiopipe.metrics import METRICS, Metric

__all__ = [
    "INT16_FULL_SCALE",
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
