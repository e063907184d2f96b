"""Call the libraries that the kernels are compared with, as people use them: one item at a time, on a CPU.

They are imported where they are used, because only the extra `bench` installs them.
"""

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

__all__ = [
    "Function",
    "ebur128_integrated_lufs",
    "find_ebur128",
    "load_feature_functions",
    "load_loudness_functions",
    "load_resample_functions",
]

Audio = npt.NDArray[np.float32]
Function = Callable[[Audio], object]
_MODE_INTEGRATED = (1 << 2) | (1 << 0)  # EBUR128_MODE_I


def find_ebur128() -> ctypes.CDLL | None:
    """Load libebur128 (Debian's libebur128-1) and declare its signatures; return None if it is not installed."""
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
    """Measure the integrated loudness of mono audio [T] with libebur128, in LUFS."""
    state = ctypes.c_void_p(library.ebur128_init(1, sample_rate, _MODE_INTEGRATED))
    lufs = ctypes.c_double()
    library.ebur128_add_frames_float(state, x.ctypes.data, len(x))
    library.ebur128_loudness_global(state, ctypes.byref(lufs))
    library.ebur128_destroy(ctypes.byref(state))
    return lufs.value


def _load(name: str) -> Any:
    with require_extra("bench", "the benchmark of the kernels"):
        return import_module(name)


def _librosa_features(x: Audio, sample_rate: int) -> None:
    """Compute centroid, bandwidth, rolloff and flatness from one STFT, and zero crossings, with librosa's defaults."""
    librosa = _load("librosa")
    magnitude = np.abs(librosa.stft(x))
    for name in ("spectral_centroid", "spectral_bandwidth", "spectral_rolloff"):
        getattr(librosa.feature, name)(S=magnitude, sr=sample_rate)
    librosa.feature.spectral_flatness(S=magnitude)
    librosa.feature.zero_crossing_rate(x)


def load_loudness_functions(sample_rate: int) -> dict[str, Function]:
    """Return each library's function for the integrated loudness of one item; libebur128 only if it is installed."""
    meter = _load("pyloudnorm").Meter(sample_rate)
    transform = _load("torchaudio").transforms.Loudness(sample_rate)
    functions: dict[str, Function] = {
        "pyloudnorm": lambda x: meter.integrated_loudness(x.astype(np.float64)),
        "torchaudio": lambda x: transform(torch.from_numpy(x)[None]),
    }
    library = find_ebur128()
    if library is not None:
        functions["libebur128"] = lambda x: ebur128_integrated_lufs(library, x, sample_rate)
    return functions


def load_feature_functions(sample_rate: int) -> dict[str, Function]:
    """Return each library's function for the other metrics of one item."""
    return {"librosa": lambda x: _librosa_features(x, sample_rate)}


def load_resample_functions(from_rate: int, to_rate: int) -> dict[str, Function]:
    """Return each library's function that resamples one item: torchaudio at its default quality, soxr at HQ."""
    soxr, torchaudio = _load("soxr"), _load("torchaudio")
    return {
        "torchaudio resample": lambda x: torchaudio.functional.resample(torch.from_numpy(x), from_rate, to_rate),
        "soxr HQ": lambda x: soxr.resample(x, from_rate, to_rate, quality="HQ"),
    }
