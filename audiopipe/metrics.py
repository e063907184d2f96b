"""The metrics of a segment: their names in the order of the tables, their units and descriptions.

The kernels compute them. This table is a separate module without imports, so that what reads it does not load torch.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["METRICS", "Metric"]


class Metric(NamedTuple):
    """The unit and description of a metric, for schemas, reports and `audiopipe explain`."""

    unit: str
    description: str


METRICS: dict[str, Metric] = {
    "loudness_lufs": Metric("LUFS", "integrated loudness (BS.1770-5, both gates)"),
    "momentary_max_lufs": Metric("LUFS", "loudness of the loudest window of 400 ms (EBU Tech 3341)"),
    "short_term_max_lufs": Metric("LUFS", "loudness of the loudest window of 3 s (EBU Tech 3341)"),
    "loudness_range_lu": Metric("LU", "loudness range (EBU Tech 3342); none below 3 s, where libebur128 returns 0"),
    "true_peak_dbtp": Metric("dBTP", "highest level of the continuous signal between the samples (BS.1770-5, Annex 2)"),
    "sample_peak_dbfs": Metric("dBFS", "highest level of a sample"),
    "rms_dbfs": Metric("dBFS", "root mean square of the samples; a full-scale sine is -3.01"),
    "crest_db": Metric("dB", "ratio of sample peak to RMS"),
    "dc_offset": Metric("1", "mean of the samples; full scale is 1.0"),
    "clipping_ratio": Metric("1", "share of samples at full scale"),
    "silence_ratio": Metric("1", "share of samples in blocks of 32 whose peak is below -60 dBFS"),
    "snr_db": Metric("dB", "estimated ratio of the signal to its noise, which is what remains in pauses"),
    "zero_crossing_rate": Metric("1", "share of pairs of successive samples with different signs"),
    "spectral_centroid_hz": Metric("Hz", "mean frequency of the magnitude spectrum"),
    "spectral_bandwidth_hz": Metric("Hz", "standard deviation of the magnitude spectrum around its centroid"),
    "spectral_rolloff_hz": Metric("Hz", "frequency below which 85 % of the magnitude lies"),
    "spectral_flatness": Metric("1", "ratio of geometric to arithmetic mean of the power spectrum: 1 noise, 0 a tone"),
    "bandwidth_hz": Metric("Hz", "highest frequency that carries signal"),
}
