"""Damaged media files end in an error of the video or in samples: no hang, no dead worker, no other exception."""

import os
import random
import time

import pytest
from factories import config, media_file, source_of, tones

from audiopipe.errors import TransientVideoError, VideoError
from audiopipe.media.decode import decode, probe
from audiopipe.media.limits import refuse_truncated

FILES = int(os.environ.get("FUZZ_FILES", "120"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
LONGEST_S = 60  # of one small file; a file that hangs takes `decode_timeout_s`, which is more
FORMATS = {
    "wav": ("a.wav", ()),
    "float": ("f.wav", ("-c:a", "pcm_f32le")),
    "w64": ("a.w64", ("-f", "w64")),
    "flac": ("a.flac", ()),
    "vorbis": ("v.ogg", ("-c:a", "libvorbis")),
    "opus": ("a.opus", ("-c:a", "libopus")),
    "ogg_flac": ("f.ogg", ("-c:a", "flac")),
    "m4a": ("a.m4a", ("-c:a", "aac")),
    "fragments": ("f.mp4", ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov")),
    "webm": ("a.webm", ("-c:a", "libopus")),
    "mp3": ("a.mp3", ()),
    "mkv": ("a.mkv", ("-c:a", "pcm_s16le")),
    "aac_mkv": ("b.mkv", ("-c:a", "aac")),
    "ts": ("a.ts", ("-c:a", "aac")),
    "adts": ("a.aac", ("-c:a", "aac")),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    signal = tones(2.0, 16_000, 1)
    return [media_file(folder / name, signal, 16_000, *options).read_bytes() for name, options in FORMATS.values()]


def mutate(data, others, rng):
    """Flip bits, cut, repeat, remove, overwrite or splice; mostly near the front, where the headers are."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        front = rng.random() < 0.6
        at = rng.randrange(min(len(out), 600 if front else len(out)))
        size = min(rng.choice((1, 2, 4, 8, 64, 1000, 20_000)), len(out) - at)
        kind = rng.randrange(8)
        if kind == 0:
            for _ in range(rng.choice((1, 3, 30))):
                out[rng.randrange(at, len(out))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at + 1 :]
        elif kind == 2:
            out[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif kind == 3:
            out[at:at] = out[at : at + size] * rng.choice((1, 3, 50))
        elif kind == 4:
            del out[at : at + size]
        elif kind == 5:
            out[at : at + size] = rng.randbytes(size)
        elif kind == 6:
            other = rng.choice(others)
            out = out[:at] + bytearray(other[rng.randrange(len(other)) :])
        else:
            out += rng.choice(others)
    return bytes(out[: 1 << 21])


def judge(path):
    """Return the kind of result of a file: samples, or the name of the error of the video."""
    source, settings = source_of(path), config(decode_timeout_s=90.0)
    try:
        media = probe(source, settings)
        frames = sum(block.shape[-1] for block in decode(source, media, settings))
        refuse_truncated(source, media, frames / media.sample_rate_hz, settings)
    except (VideoError, TransientVideoError) as error:
        return type(error).__name__
    return "samples"


@pytest.mark.slow
def test_damaged_files_end_in_samples_or_a_named_error(originals, tmp_path):
    rng, path = random.Random(SEED), tmp_path / "a.bin"
    results, slowest = {}, 0.0
    for number in range(FILES):
        data = mutate(originals[number % len(originals)], originals, rng)
        path.write_bytes(data)
        start = time.monotonic()
        result = judge(path)
        elapsed = time.monotonic() - start
        slowest = max(slowest, elapsed)
        results[result] = results.get(result, 0) + 1
    assert "DecoderTimeout" not in results
    assert "DecoderCrash" not in results
    assert slowest < LONGEST_S
    assert results["samples"] > FILES // 20
    assert len(results) > 2
