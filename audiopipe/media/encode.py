"""Encode one segment to bytes, the same bytes for the same samples every time.

FLAC and WAV go through libsndfile. Opus and MP3 go through FFmpeg's libraries (libopus, LAME) by PyAV: libsndfile's
Opus encoder runs twenty times slower. A segment is one call of a few hundred packets, so that PyAV's cost for each
frame does not matter here as it would in decoding.
"""

from __future__ import annotations

import io

import av
import numpy as np
import numpy.typing as npt
import soundfile as sf

__all__ = ["SUFFIXES", "encode"]

SUFFIXES = {"flac": ".flac", "wav": ".wav", "opus": ".opus", "mp3": ".mp3"}
# FLAC at libsndfile's own level, 5 of 8: of 600 s of speech at 16 kHz it makes 58.1 % at 3,800 times real time a core;
# level 8 makes 57.6 % at 2,400 times, level 0 58.9 % at 4,300.
SNDFILE = {"flac": "FLAC", "wav": "WAV"}
# container, codec, bits a second for mono speech, effort: libopus at its utmost (10) takes twice as long as at 5, for
# what nobody hears at this rate
FFMPEG: dict[str, tuple[str, str, int, dict[str, str]]] = {
    "opus": ("ogg", "libopus", 32_000, {"compression_level": "5"}),
    "mp3": ("mp3", "libmp3lame", 64_000, {}),
}


def encode(samples: npt.NDArray[np.int16], sample_rate_hz: int, audio_format: str) -> bytes:
    """Encode mono samples.

    Args:
        samples: [T], int16, not empty.
        audio_format: 'flac', 'wav', 'opus' or 'mp3'.
    """
    if audio_format in SNDFILE:
        buffer = io.BytesIO()
        sf.write(buffer, samples, sample_rate_hz, format=SNDFILE[audio_format], subtype="PCM_16")
        return buffer.getvalue()
    return _encode_lossy(samples, sample_rate_hz, *FFMPEG[audio_format])


def _encode_lossy(
    samples: npt.NDArray[np.int16],
    sample_rate_hz: int,
    container: str,
    codec: str,
    bit_rate: int,
    effort: dict[str, str],
) -> bytes:
    buffer = io.BytesIO()
    # Without "bitexact" an Ogg stream gets a random serial number and every file the muxer's version.
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=sample_rate_hz, layout="mono", bit_rate=bit_rate)
        stream.codec_context.options = {"flags": "+bitexact"} | effort
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        frame.sample_rate = sample_rate_hz
        frame.pts = 0
        assert isinstance(stream, av.AudioStream)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()
