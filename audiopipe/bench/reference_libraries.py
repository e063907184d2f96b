"""The libraries that the kernels are measured beside, each as people use it: one item after another, on a CPU.

They are imported where they are used, because only the extra `bench` installs them."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiopipe.extras import require_extra

Audio = npt.NDArray[np.float32]
_MODE_INTEGRATED = (1 << 2) | (1 << 0)  # EBUR128_MODE_I


def find_ebur128() -> ctypes.CDLL | None:
    """libebur128 (Debian's libebur128-1) with its signatures declared, None if it is not installed."""
    name = ctypes.util.find_library("ebur128")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    library.ebur128_init.restype = ctypes.c_void_p
    library.ebur128_init.argtypes = [ctypes.c_uint, ctypes.c_ulong, ctypes.c_int]
    library.ebur128_add_frames_float.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    library.ebur128_loudness_global.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_double)]
    library.ebur128_destroy.argtypes = [ctypes.POINTER(ctypes.c_void_p)]
    return library


def ebur128_integrated_lufs(library: ctypes.CDLL, x: Audio, sample_rate: int) -> float:
    """Integrated loudness of mono audio by libebur128."""
    state = ctypes.c_void_p(library.ebur128_init(1, sample_rate, _MODE_INTEGRATED))
    lufs = ctypes.c_double()
    library.ebur128_add_frames_float(state, x.ctypes.data, len(x))
    library.ebur128_loudness_global(state, ctypes.byref(lufs))
    library.ebur128_destroy(ctypes.byref(state))
    return lufs.value


def _library(name: str) -> Any:
    with require_extra("bench", "the benchmark of the kernels"):
        return import_module(name)


def _librosa_features(x: Audio, sample_rate: int) -> None:
    """Centroid, bandwidth, rolloff and flatness from one shared STFT, and zero crossings, at librosa's defaults."""
    librosa = _library("librosa")
    magnitude = np.abs(librosa.stft(x))
    for name in ("spectral_centroid", "spectral_bandwidth", "spectral_rolloff"):
        getattr(librosa.feature, name)(S=magnitude, sr=sample_rate)
    librosa.feature.spectral_flatness(S=magnitude)
    librosa.feature.zero_crossing_rate(x)


def loudness_peers(sample_rate: int) -> dict[str, Callable[[Audio], object]]:
    """Integrated loudness of one item, by each library that is installed."""
    meter = _library("pyloudnorm").Meter(sample_rate)
    transform = _library("torchaudio").transforms.Loudness(sample_rate)
    peers: dict[str, Callable[[Audio], object]] = {
        "pyloudnorm": lambda x: meter.integrated_loudness(x.astype(np.float64)),
        "torchaudio": lambda x: transform(torch.from_numpy(x)[None]),
    }
    library = find_ebur128()
    if library is not None:
        peers["libebur128"] = lambda x: ebur128_integrated_lufs(library, x, sample_rate)
    return peers


def feature_peers(sample_rate: int) -> dict[str, Callable[[Audio], object]]:
    """The other metrics of one item."""
    return {"librosa": lambda x: _librosa_features(x, sample_rate)}


def resample_peers(from_rate: int, to_rate: int) -> dict[str, Callable[[Audio], object]]:
    """The rate conversion of one item; torchaudio at its default quality, soxr at HQ."""
    soxr, torchaudio = _library("soxr"), _library("torchaudio")
    return {
        "torchaudio resample": lambda x: torchaudio.functional.resample(torch.from_numpy(x), from_rate, to_rate),
        "soxr HQ": lambda x: soxr.resample(x, from_rate, to_rate, quality="HQ"),
    }
