import shutil
import time
from pathlib import Path

import pytest
import reference
from factories import config

from audiopipe.config import RunConfig
from audiopipe.errors import BrokenWorker, UndecodableMedia, WorkerFailure
from audiopipe.pipeline import score, self_check, shard
from audiopipe.pipeline.self_check import LOUDNESS_LUFS, SAMPLE_RATE_HZ, SEGMENTS, check_worker, require_sound_worker


@pytest.fixture
def settings(tmp_path: Path) -> RunConfig:
    return config(device="cpu", scratch=str(tmp_path / "scratch"))


def test_a_sound_worker_passes_soon_and_leaves_nothing(settings: RunConfig) -> None:
    assert check_worker(settings) is None  # starts the fork server
    started = time.monotonic()
    require_sound_worker(settings)
    assert time.monotonic() - started < 10
    assert list(Path(settings.scratch or "").iterdir()) == []


def test_the_known_answer_is_that_of_the_reference() -> None:
    signal = self_check._sample()[None] / 32768
    for segment, expected in zip(SEGMENTS, LOUDNESS_LUFS, strict=True):
        start, end = (round(float(segment[name]) * SAMPLE_RATE_HZ) for name in ("start", "end"))
        assert reference.integrated(signal[:, start:end], SAMPLE_RATE_HZ) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("audio_format", ["wav", "opus", "mp3"])
def test_the_check_encodes_as_the_run_does(settings: RunConfig, audio_format: str) -> None:
    assert check_worker(settings.model_copy(update={"audio_format": audio_format, "sample_rate": 24_000})) is None


@pytest.mark.parametrize(
    ("raised", "message", "kind"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), "its GPU failed: CUDA error", WorkerFailure),
        (RuntimeError("Found no NVIDIA driver on your system"), "its GPU cannot be used: Found no", BrokenWorker),
        (MemoryError(), "out of memory", WorkerFailure),
        (OSError(28, "No space left on device"), "No space left on device", BrokenWorker),
        (ImportError("libsox.so"), "cannot be loaded: libsox.so", BrokenWorker),
        (ZeroDivisionError("scale"), "a known-good video fails on it: ZeroDivisionError: scale", WorkerFailure),
    ],
    ids=lambda value: str(value)[:30],
)
def test_whatever_fails_on_the_sample_is_the_workers(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch, raised: Exception, message: str, kind: type[WorkerFailure]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(shard, "score", fail)
    failure = check_worker(settings)
    assert type(failure) is kind
    assert message in str(failure)
    assert failure is not None
    assert failure.is_confirmed


def test_decoders_that_fail_on_the_sample_are_the_workers(settings: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UndecodableMedia("the decoder crashed with signal 11")

    monkeypatch.setattr("audiopipe.pipeline.video.probe", fail)
    with pytest.raises(WorkerFailure, match="known-good video fails on it: UndecodableMedia: the decoder crashed"):
        require_sound_worker(settings)


def test_a_device_that_computes_wrong_values_fails(settings: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = score.kernels.measure_and_resample

    def measure(*arguments: object, **options: object) -> object:
        metrics, samples = real(*arguments, **options)  # type: ignore[arg-type]
        metrics.loudness_lufs.add_(3.0)
        return metrics, samples

    monkeypatch.setattr(score.kernels, "measure_and_resample", measure)
    with pytest.raises(WorkerFailure, match="it computes wrong values: loudness"):
        require_sound_worker(settings)


def test_a_disk_without_room_for_the_work_fails(settings: RunConfig) -> None:
    free = shutil.disk_usage(Path(settings.scratch or "").parent).free
    failure = check_worker(settings, needed_bytes=2 * free)
    assert isinstance(failure, BrokenWorker)
    assert "free some space, or name another folder (parameter scratch)" in str(failure)


def test_full_shared_memory_fails(settings: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(self_check.os, "posix_fallocate", refuse)
    with pytest.raises(BrokenWorker, match="shared memory /dev/shm cannot be used: No space left on device"):
        require_sound_worker(settings)


def test_a_worker_that_was_given_a_gpu_does_not_fall_back_to_its_cpu(
    settings: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score.torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f6f4e3c")
    failure = check_worker(settings.model_copy(update={"device": "auto"}))
    assert isinstance(failure, BrokenWorker)
    assert "cannot use the GPU that this worker was given" in str(failure)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert check_worker(settings.model_copy(update={"device": "auto"})) is None
