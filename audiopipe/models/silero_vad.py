"""Silero's voice activity network with its original weights, evaluated on many streams and all their frames at once.

Silero's packaged model takes one frame of one stream per call and stores the state inside, which limits it to 60 times
real time. Only the recurrent cell of the network depends on the previous frame. Therefore the layers below it are one
pass over all frames of all streams, and the cell is one call for all streams. The probabilities equal those of the
packaged model to 1e-6.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from audiopipe.kernels.float32 import full_float32

__all__ = ["FRAME", "RATE_HZ", "State", "VoiceModel", "load_voice_model"]

RATE_HZ = 16_000
FRAME = 512  # new samples of a frame: 32 ms
CONTEXT = 64  # samples of the previous frame that a frame repeats
HIDDEN = 128
BANDS = 129  # real parts of the spectrum; as many imaginary ones follow
HOP = 128
STRIDES = (1, 2, 2, 1)
TILE_FRAMES = {
    "cpu": 500,
    "cuda": 1 << 15,
}  # frames in a pass; on a CPU a pass that fits into the caches is 1.4 times as fast

State = tuple[Tensor, Tensor, Tensor]  # last samples [CONTEXT], hidden and cell state of the LSTM [HIDDEN]


@cache
def load_voice_model(device: torch.device) -> VoiceModel:
    """Load the network to a device; cached for the life of the process."""
    return VoiceModel().to(device).eval().requires_grad_(False)


def _weights() -> dict[str, Tensor]:
    packaged = files("silero_vad") / "data" / "silero_vad.jit"
    with as_file(packaged) as path, warnings.catch_warnings():
        # This is the only file of the package with these weights that torch alone can read.
        warnings.simplefilter("ignore", DeprecationWarning)
        values: dict[str, Tensor] = torch.jit.load(str(path), map_location="cpu").state_dict()
    return {name.removeprefix("_model."): value for name, value in values.items() if name.startswith("_model.")}


class VoiceModel(nn.Module):
    """A network that maps frames of 32 ms to the probability of speech in each frame."""

    def __init__(self) -> None:
        super().__init__()
        weights = _weights()
        self.register_buffer("basis", weights["stft.forward_basis_buffer"])
        for layer in range(len(STRIDES)):
            for part in ("weight", "bias"):
                self.register_buffer(f"{part}_{layer}", weights[f"encoder.{layer}.reparam_conv.{part}"])
        self.cell = nn.LSTM(HIDDEN, HIDDEN)
        self.cell.load_state_dict(
            {f"{part}_l0": weights[f"decoder.rnn.{part}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        )
        self.register_buffer("out_weight", weights["decoder.decoder.2.weight"][0, :, 0])
        self.register_buffer("out_bias", weights["decoder.decoder.2.bias"])

    def start(self) -> State:
        """Return the initial state of a stream: silence and zero vectors."""
        empty = self.get_buffer("out_weight").new_zeros
        return empty(CONTEXT), empty(HIDDEN), empty(HIDDEN)

    @torch.inference_mode()
    def forward(self, waves: Sequence[Tensor], states: Sequence[State]) -> tuple[list[Tensor], list[State]]:
        """Compute the speech probabilities of the next frames of several streams.

        Args:
            waves: the next samples of each stream at 16 kHz, float32 with full scale 1.0.
            states: the state of each stream that the last call returned, or `start()`.
        Shape:
            - waves: [n * FRAME] each, n > 0
            - output: probabilities from 0 to 1, [n] each, and the states for the next call
        """
        inputs = [torch.cat([state[0], wave]) for wave, state in zip(waves, states, strict=True)]
        frames = [wave.unfold(0, CONTEXT + FRAME, FRAME) for wave in inputs]
        with full_float32(networks=True):
            tiles = torch.cat(frames).split(TILE_FRAMES.get(self.device.type, TILE_FRAMES["cuda"]))
            features = torch.cat([self._encode(tile) for tile in tiles]).split([len(part) for part in frames])
            packed = pack_sequence(list(features), enforce_sorted=False)
            initial = tuple(torch.stack([state[part] for state in states])[None] for part in (1, 2))
            output, final = self.cell(packed, initial)
            output = output._replace(data=self._decide(output.data)[:, None])
        probabilities = [part[:, 0] for part in unpack_sequence(output)]
        contexts = [wave[-CONTEXT:] for wave in inputs]
        return probabilities, list(zip(contexts, *(part[0].unbind() for part in final), strict=True))

    @property
    def device(self) -> torch.device:
        return self.get_buffer("out_weight").device

    def _encode(self, frames: Tensor) -> Tensor:
        """Encode frames by the magnitudes of four spectra and convolutions: [N, CONTEXT + FRAME] -> [N, HIDDEN]"""
        x = conv1d(pad(frames[:, None], (0, CONTEXT), "reflect"), self.get_buffer("basis"), stride=HOP)
        x = (x[:, :BANDS].square() + x[:, BANDS:].square()).sqrt()
        for layer, stride in enumerate(STRIDES):
            weight, bias = self.get_buffer(f"weight_{layer}"), self.get_buffer(f"bias_{layer}")
            x = conv1d(x, weight, bias, stride=stride, padding=1).relu()
        return x[:, :, 0]

    def _decide(self, hidden: Tensor) -> Tensor:
        return torch.sigmoid(hidden.relu() @ self.get_buffer("out_weight") + self.get_buffer("out_bias"))
