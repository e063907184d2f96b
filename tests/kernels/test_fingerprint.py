"""Test fingerprints on synthetic speech: bursts of noise with moving formants, different for each seed."""

import subprocess
from collections.abc import Iterator

import factories
import numpy as np
import pytest
import torch

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.dataset import fingerprints
from audiopipe.dataset.fingerprints import compare_events
from audiopipe.kernels.fingerprint import MAX_EVENTS, Fingerprint

RATE = 48_000
# Bounds observed on real recordings: similarity of different recordings at most CHANCE, of copies at least COPY.
CHANCE, COPY = 0.05, 0.25


def speech(seed: int, seconds: float = 40.0, rate: int = RATE) -> torch.Tensor:
    return torch.from_numpy(factories.synthetic_speech(seed, seconds, rate))


def events(x: torch.Tensor, rate: int = RATE, block: int = 48_000) -> torch.Tensor:
    fingerprint = Fingerprint(rate, len(x))
    for start in range(0, x.shape[1], block):
        fingerprint.add(x[:, start : start + block])
    return fingerprint.finish()


def compare(a: torch.Tensor, b: torch.Tensor) -> float:
    rows = [torch.nn.functional.pad(item, (0, MAX_EVENTS - len(item)), value=-1)[None] for item in (a, b)]
    return float(compare_events(*(row.numpy() for row in rows))[0][0])


def test_a_fingerprint_is_stored_whole() -> None:
    assert fingerprints.MAX_EVENTS == MAX_EVENTS


def transcode(x: torch.Tensor, rate: int, *codec: str) -> torch.Tensor:
    """Encode and decode a recording at `rate`."""
    command = [find_ffmpeg(), "-v", "error", "-f"]
    pcm_in = x.clamp(-1, 1).numpy().astype("<f4").tobytes()
    source = ["f32le", "-ar", str(RATE), "-ac", "1", "-i", "pipe:0"]
    encode = [*command, *source, "-ar", str(rate), *codec, "-f", "matroska", "-"]
    media = subprocess.run(encode, input=pcm_in, check=True, capture_output=True, timeout=60).stdout
    decode = [*command, "matroska", "-i", "pipe:0", "-ac", "1", "-f", "s16le", "pipe:1"]
    pcm = subprocess.run(decode, input=media, check=True, capture_output=True, timeout=60).stdout
    return torch.from_numpy(np.frombuffer(pcm, "<i2").copy())[None]


@pytest.fixture(autouse=True, scope="module")
def single_thread() -> Iterator[None]:
    """Use one thread, as a worker does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def original() -> torch.Tensor:
    return speech(0)


def test_block_size_does_not_change_the_fingerprint(original: torch.Tensor) -> None:
    whole = events(original, block=original.shape[1])
    for block in (48_000, 16_000, 12_345, 700_001):
        assert torch.equal(events(original, block=block), whole)


def test_int16_and_stereo_are_the_same_recording(original: torch.Tensor) -> None:
    whole = events(original)
    int16 = (original * 32768).round().to(torch.int16)
    assert compare(events(int16), whole) > 0.95
    assert compare(events(torch.cat([original, original])), whole) == 1.0


@pytest.mark.parametrize(
    ("rate", "codec"),
    [
        (48_000, ("-c:a", "libopus", "-b:a", "96k")),
        (48_000, ("-c:a", "libopus", "-b:a", "24k")),
        (44_100, ("-c:a", "aac", "-b:a", "64k")),
        (16_000, ("-c:a", "libmp3lame", "-b:a", "32k")),
        (22_050, ("-c:a", "libmp3lame", "-b:a", "64k")),
    ],
)
def test_a_copy_with_another_codec_gain_and_start_is_recognized(
    original: torch.Tensor, rate: int, codec: tuple[str, ...]
) -> None:
    copy = transcode(original[:, int(3.217 * RATE) :] * 0.31, rate, *codec)
    assert compare(events(original), events(copy, rate)) > COPY


def test_different_recordings_do_not_match(original: torch.Tensor) -> None:
    fingerprint = events(original)
    assert max(compare(fingerprint, events(speech(seed))) for seed in range(1, 9)) < CHANCE


def test_similarity_to_a_part_is_its_share_of_the_whole() -> None:
    whole = speech(3, 80.0)
    assert 0.35 < compare(events(whole), events(whole[:, : 40 * RATE])) < 0.65


def test_a_long_recording_keeps_the_lowest_events_of_all_its_parts() -> None:
    parts = [speech(seed) for seed in range(4)]
    whole = events(torch.cat(parts, 1))
    assert len(whole) == MAX_EVENTS
    assert (whole.diff() > 0).all()
    assert whole.max() < 1 << 32
    part_events = {event for part in parts for event in events(part).tolist()}
    assert len(part_events & set(whole.tolist())) > 0.9 * MAX_EVENTS


@pytest.mark.parametrize("name", ["silence", "tone", "empty", "nan"])
def test_audio_without_events_matches_no_recording(name: str) -> None:
    time = torch.arange(10 * RATE) / RATE
    sounds = {
        "silence": torch.zeros(1, 10 * RATE),
        "tone": 0.5 * torch.sin(2 * torch.pi * 440 * time)[None] * torch.hann_window(len(time)),
        "empty": torch.zeros(1, 0),
        "nan": torch.full((1, 10 * RATE), torch.nan),
    }
    fingerprint = events(sounds[name])
    assert len(fingerprint) <= 2
    assert compare(fingerprint, events(speech(0, 10.0))) == 0.0


def test_a_quiet_recording_has_the_same_events_as_a_loud_one(original: torch.Tensor) -> None:
    assert compare(events(original), events(original * 0.01)) > 0.9


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 24_000, 32_000, 44_100, 96_000, 192_000])
def test_every_rate_has_a_fingerprint(rate: int) -> None:
    sound = speech(5, 30.0, rate)
    assert len(events(sound, rate, block=rate)) > 20


def test_similarity_equals_a_slow_count() -> None:
    """Compare with a loop over pairs of events, on random fingerprints that share events, some of them full."""
    rng = np.random.default_rng(0)
    for size_a, size_b, shared in [(128, 128, 70), (128, 40, 25), (30, 50, 30), (0, 20, 0)]:
        pool = rng.choice(1 << 20, size_a + size_b, replace=False) << 12
        a = sorted(pool[:size_a].tolist())
        b = sorted(
            [*rng.permutation(pool[:size_a])[:shared].tolist(), *pool[size_a : size_a + size_b - shared].tolist()]
        )
        last = min([1 << 32, *(row[-1] for row in (a, b) if len(row) == MAX_EVENTS)])
        a_events, b_events = [e for e in a if e <= last], [e for e in b if e <= last]

        def has_match(event: int, events: list[int]) -> bool:
            return any(event >> 24 == e >> 24 and ((event ^ e) & 0xFFFFFF).bit_count() <= 4 for e in events)

        common = min(sum(has_match(e, b_events) for e in a_events), sum(has_match(e, a_events) for e in b_events))
        expected = common / max(1, len(a_events) + len(b_events) - common)
        assert compare(torch.tensor(a, dtype=torch.int64), torch.tensor(b, dtype=torch.int64)) == pytest.approx(
            expected
        )


@pytest.mark.parametrize(
    ("x", "message"), [(torch.zeros(8), "two dimensions"), (torch.zeros(1, 8, dtype=torch.int32), "int16, float32")]
)
def test_invalid_tensors_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fingerprint(16_000).add(x)


def test_invalid_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="8000 to 192000"):
        Fingerprint(4_000)
