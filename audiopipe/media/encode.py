"""Encode one segment to bytes; the same samples always give the same bytes.

FLAC and WAV are written by libsndfile, Opus and MP3 by FFmpeg's libraries (libopus, LAME) through PyAV, because
libsndfile's Opus encoder is twenty times slower. A segment is one call of a few hundred packets, so PyAV's cost for
each frame matters less here than in decoding.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import av
import numpy as np
import numpy.typing as npt
import soundfile as sf

__all__ = ["SUFFIXES", "encode"]

SUFFIXES = {"flac": ".flac", "wav": ".wav", "opus": ".opus", "mp3": ".mp3"}
# FLAC at libsndfile's default level, 5 of 8: for 600 s of speech at 16 kHz it needs 58.1 % of the size of WAV at 3,800
# times real time per core; level 8 needs 57.6 % at 2,400 times, level 0 58.9 % at 4,300 times.
SNDFILE_FORMATS = {"flac": "FLAC", "wav": "WAV"}


@dataclass(frozen=True)
class _LossyFormat:
    """The parameters of FFmpeg for a lossy format; the bit rate is for mono speech.

    `scale` is the gain of the encoder, which is undone before it.
    """

    container: str
    codec: str
    bit_rate: int
    scale: float = 1.0
    options: dict[str, str] = field(default_factory=dict)


LOSSY_FORMATS = {
    # libopus at its highest complexity (10) takes twice as long as at 5; the difference is inaudible at this bit rate.
    "opus": _LossyFormat("ogg", "libopus", 32_000, options={"compression_level": "5"}),
    # LAME multiplies its input by 0.95 (-0.45 dB) and FFmpeg has no option for it.
    "mp3": _LossyFormat("mp3", "libmp3lame", 64_000, scale=0.95),
}


def encode(samples: npt.NDArray[np.int16], sample_rate_hz: int, audio_format: str) -> bytes:
    """Encode mono samples.

    Args:
        samples: [T], int16, not empty.
        audio_format: 'flac', 'wav', 'opus' or 'mp3'.
    """
    if audio_format in SNDFILE_FORMATS:
        buffer = io.BytesIO()
        sf.write(buffer, samples, sample_rate_hz, format=SNDFILE_FORMATS[audio_format], subtype="PCM_16")
        return buffer.getvalue()
    return _encode_lossy(samples, sample_rate_hz, LOSSY_FORMATS[audio_format])


def _encode_lossy(samples: npt.NDArray[np.int16], sample_rate_hz: int, lossy: _LossyFormat) -> bytes:
    buffer = io.BytesIO()
    # Without "bitexact" an Ogg stream gets a random serial number, and every file the version of the muxer.
    with av.open(buffer, "w", format=lossy.container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(lossy.codec, rate=sample_rate_hz, layout="mono", bit_rate=lossy.bit_rate)
        stream.codec_context.options = {"flags": "+bitexact"} | lossy.options
        frame = _to_frame(samples, lossy.scale)
        frame.sample_rate = sample_rate_hz
        frame.pts = 0
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.format = frame.format
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def _to_frame(samples: npt.NDArray[np.int16], scale: float) -> av.AudioFrame:
    """Return a frame of the samples divided by `scale`, in float32 if that is not 1, as they may exceed full scale."""
    if scale == 1.0:
        return av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
    return av.AudioFrame.from_ndarray(samples[None, :] * np.float32(1 / (32768 * scale)), format="fltp", layout="mono")
