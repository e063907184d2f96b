"""Ways to do the work, each a function of a file: what is the least, what others do, and ours.

Each runs in a process of its own, bound to its cores: `python -m audiopipe.bench.baselines NAME TASK` gets ready,
says so, waits for a line, works, and prints what it took.
"""

from __future__ import annotations

import io
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import soundfile as sf
import torch

from audiopipe.bench.corpus.media import ffmpeg
from audiopipe.bench.inputs import SEGMENT_S
from audiopipe.config import RunConfig
from audiopipe.extras import require_extra
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, ShardResult, Video

__all__ = ["RIVALS"]

OUT_RATE_HZ = 16_000
SEQUENTIAL_SEGMENTS = 40  # it is slow and steady: a part of a video tells

# What a rival did: seconds of audio, and whatever it knows of its stages.
Done = dict[str, Any]
Task = dict[str, Any]


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(
        [ffmpeg(), "-nostdin", "-v", "error", "-threads", "1", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def _pcm(path: str, rate_hz: int, seconds: float | None = None) -> npt.NDArray[np.float32]:
    """[T, 2] float32 of a file, or of its beginning."""
    limit = [] if seconds is None else ["-t", f"{seconds}"]
    command = [ffmpeg(), "-v", "error", "-threads", "1", "-i", path, *limit, "-ar", str(rate_hz), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, "<f4").reshape(-1, 2)


def _noise(samples: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0.0, 0.05, samples).astype(np.float32)


def decode_only(task: Task) -> Callable[[], Done]:
    """ffmpeg to nothing: what no pipeline can be faster than."""

    def work() -> Done:
        for _ in range(task["videos"]):
            _ffmpeg("-i", task["path"], "-map", "0:a:0", "-f", "null", "-")
        return {"audio_s": task["seconds"] * task["videos"]}

    return work


def codec_floor(task: Task) -> Callable[[], Done]:
    """Decoding, and encoding what would come out: the work that is in nobody's power to leave out."""
    speech = (_pcm(task["path"], OUT_RATE_HZ, 60.0).mean(1) * 32767).astype(np.int16)
    size = round(SEGMENT_S * OUT_RATE_HZ)
    pieces = [speech[i : i + size] for i in range(0, len(speech) - size + 1, size)]
    decode = decode_only(task)

    def work() -> Done:
        done = decode()
        for number in range(round(done["audio_s"] / SEGMENT_S)):
            sf.write(io.BytesIO(), pieces[number % len(pieces)], OUT_RATE_HZ, format="FLAC", subtype="PCM_16")
        return done

    return work


def ffmpeg_pipeline(task: Task) -> Callable[[], Done]:
    """ffmpeg's C alone: decode, the mean of the channels, EBU R128, 16 kHz FLAC segments. One metric, no true peak."""

    def work() -> Done:
        for _ in range(task["videos"]):
            with tempfile.TemporaryDirectory() as folder:
                mono = "aformat=sample_fmts=fltp,pan=1c|c0=0.5*c0+0.5*c1"
                _ffmpeg(
                    *("-i", task["path"], "-map", "0:a:0", "-filter_threads", "1"),
                    *("-af", f"{mono},ebur128=framelog=quiet,aresample={OUT_RATE_HZ},aformat=sample_fmts=s16"),
                    *("-c:a", "flac", "-threads", "1", "-f", "segment", "-segment_time", f"{SEGMENT_S}"),
                    f"{folder}/%05d.flac",
                )
        return {"audio_s": task["seconds"] * task["videos"]}

    return work


def sequential(task: Task) -> Callable[[], Done]:
    """Today's way: one segment after the other through pyloudnorm, librosa, torchaudio and soundfile."""
    with require_extra("bench", "the baseline of sequential code"):
        import librosa  # noqa: PLC0415 - slow to import
        import pyloudnorm  # noqa: PLC0415
        import torchaudio  # noqa: PLC0415

    rate, seconds = task["sample_rate_hz"], min(SEQUENTIAL_SEGMENTS * SEGMENT_S, task["seconds"])
    meter = pyloudnorm.Meter(rate)
    features = librosa.feature

    def one(segment: npt.NDArray[np.float32]) -> None:
        meter.integrated_loudness(segment)
        spectrum = np.abs(librosa.stft(segment))
        features.spectral_centroid(S=spectrum, sr=rate)
        features.spectral_bandwidth(S=spectrum, sr=rate)
        features.spectral_rolloff(S=spectrum, sr=rate)
        features.spectral_flatness(S=spectrum)
        features.zero_crossing_rate(segment)
        emitted = torchaudio.functional.resample(torch.from_numpy(segment), rate, OUT_RATE_HZ).numpy()
        sf.write(io.BytesIO(), emitted, OUT_RATE_HZ, format="FLAC", subtype="PCM_16")

    def work() -> Done:
        size = round(SEGMENT_S * rate)
        speech = _pcm(task["path"], rate, seconds).mean(1)
        for start in range(0, len(speech) - size + 1, size):
            one(speech[start : start + size])
        return {"audio_s": seconds}

    one(_noise(rate))
    return work


def ours(task: Task) -> Callable[[], Done]:
    """`process_shard` with every metric, on the GPU where there is one."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=task["scratch"]))

    def shard(index: int, path: str, videos: int) -> ShardResult:
        config = RunConfig.of(
            catalog="bench", output=str(root / "out"), segments="fixed", window_s=SEGMENT_S, scratch=str(root)
        )
        listed = tuple(Video(f"v{index}_{i}", "en", path, Path(path).stat().st_size) for i in range(videos))
        return process_shard(Shard("en", index, 0, listed), config, "bench")

    def work() -> Done:
        count = min(task["shards"], task["videos"])
        sizes = [len(range(number, task["videos"], count)) for number in range(count)]
        with ThreadPoolExecutor(count) as pool:
            results = list(pool.map(lambda index, videos: shard(index, task["path"], videos), range(count), sizes))
        return {
            "audio_s": math.fsum(result.audio_s for result in results),
            "segments": sum(result.segments for result in results),
            "stage_s": _summed(result.stage_s for result in results),
            "stage_cpu_s": _summed(result.stage_cpu_s for result in results),
            "queue_depths": results[0].queue_depths,
        }

    with tempfile.TemporaryDirectory(dir=root) as folder:
        sf.write(f"{folder}/warm.wav", _noise(12 * task["sample_rate_hz"]), task["sample_rate_hz"], subtype="FLOAT")
        shard(999, f"{folder}/warm.wav", 1)
    return work


def _summed(readings: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for reading in readings:
        total.update(reading)
    return dict(total)


# In the order of measuring: what ours is measured against comes right before it: a shared machine changes its speed.
RIVALS: dict[str, Callable[[Task], Callable[[], Done]]] = {
    "decode only": decode_only,
    "today's sequential way": sequential,
    "codec floor": codec_floor,
    "ffmpeg's C pipeline": ffmpeg_pipeline,
    "audiopipe": ours,
}


def _used_s() -> float:
    """CPU of this process, of children that have ended, and of those at work with what they have waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = math.fsum(usage.ru_utime + usage.ru_stime for usage in both)
    return ended + math.fsum(math.fsum(child.cpu_times()[:4]) for child in psutil.Process().children())


def _peak_mb() -> float:
    """The most memory that was ever resident. Not `ru_maxrss`, which begins with that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(name: str, task: Task) -> None:
    """Get ready, wait, work, tell."""
    torch.set_num_threads(1)
    work = RIVALS[name](task)
    ready_mb = _peak_mb()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    used_s, started = _used_s(), time.perf_counter()
    done = work()
    done |= {"wall_s": time.perf_counter() - started, "cpu_s": _used_s() - used_s, "ready_mb": ready_mb}
    done["peak_mb"] = _peak_mb()
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
