"""Process a file by several methods: codecs alone, ffmpeg alone, sequential Python, audiopipe, and its command.

Each runs in a process bound to its cores: `python -m audiopipe.bench.baselines METHOD TASK` prepares, prints "ready",
waits for a line on stdin, works, and prints a `ProcessResult` as JSON.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf
import torch

from audiopipe.bench.cpu_time import used_cpu_s
from audiopipe.bench.decoders import Ffmpeg, decode_all, decode_samples, run_ffmpeg
from audiopipe.bench.inputs import SEGMENT_S
from audiopipe.bench.task import Outcome, ProcessResult, Task
from audiopipe.config import RunConfig
from audiopipe.extras import require_extra
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, ShardResult, Video

__all__ = ["METHODS", "run_ffmpeg_pipeline"]

OUT_RATE_HZ = 16_000
PR_SET_CHILD_SUBREAPER = 36
SEQUENTIAL_SEGMENTS = 40  # enough to measure a method that is slow and has no queues to fill

Work = Callable[[], Outcome]


def _make_noise(samples: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0.0, 0.05, samples).astype(np.float32)


def prepare_decode(task: Task) -> Work:
    """Prepare to decode with FFmpeg and discard the samples: no pipeline can be faster."""
    way = Ffmpeg("", task.program)

    def work() -> Outcome:
        for _ in range(task.videos):
            decode_all(task.path, way)
        return Outcome(task.seconds * task.videos)

    return work


def prepare_codecs(task: Task) -> Work:
    """Prepare to decode, and to encode the amount of audio that would come out: work that no pipeline can avoid."""
    speech = (decode_samples(task.path, OUT_RATE_HZ, 60.0).mean(1) * 32767).astype(np.int16)
    size = round(SEGMENT_S * OUT_RATE_HZ)
    segments = [speech[i : i + size] for i in range(0, len(speech) - size + 1, size)]
    decode = prepare_decode(task)

    def work() -> Outcome:
        outcome = decode()
        for number in range(round(outcome.audio_s / SEGMENT_S)):
            sf.write(io.BytesIO(), segments[number % len(segments)], OUT_RATE_HZ, format="FLAC", subtype="PCM_16")
        return outcome

    return work


def prepare_ffmpeg(task: Task) -> Work:
    """Prepare ffmpeg's C code: decode, mean of the channels, EBU R 128, FLAC segments at 16 kHz. No true peak."""

    def work() -> Outcome:
        for _ in range(task.videos):
            run_ffmpeg_pipeline(task.path, task.program)
        return Outcome(task.seconds * task.videos)

    return work


def run_ffmpeg_pipeline(path: str, program: str) -> None:
    """Decode, measure, resample and encode a file with an ffmpeg program."""
    with tempfile.TemporaryDirectory() as folder:
        mono = "aformat=sample_fmts=fltp,pan=1c|c0=0.5*c0+0.5*c1"
        run_ffmpeg(
            program,
            *("-i", path, "-map", "0:a:0", "-filter_threads", "1"),
            *("-af", f"{mono},ebur128=framelog=verbose,aresample={OUT_RATE_HZ},aformat=sample_fmts=s16"),
            *("-c:a", "flac", "-threads", "1", "-f", "segment", "-segment_time", f"{SEGMENT_S}"),
            f"{folder}/%05d.flac",
        )


def prepare_sequential(task: Task) -> Work:
    """Prepare sequential Python: one segment at a time through pyloudnorm, librosa, torchaudio and soundfile."""
    with require_extra("bench", "the baseline of sequential code"):
        import librosa  # noqa: PLC0415 - slow to import
        import pyloudnorm  # noqa: PLC0415
        import torchaudio  # noqa: PLC0415

    rate, seconds = task.sample_rate_hz, min(SEQUENTIAL_SEGMENTS * SEGMENT_S, task.seconds)
    meter = pyloudnorm.Meter(rate)
    features = librosa.feature

    def process_segment(segment: npt.NDArray[np.float32]) -> None:
        meter.integrated_loudness(segment)
        spectrum = np.abs(librosa.stft(segment))
        features.spectral_centroid(S=spectrum, sr=rate)
        features.spectral_bandwidth(S=spectrum, sr=rate)
        features.spectral_rolloff(S=spectrum, sr=rate)
        features.spectral_flatness(S=spectrum)
        features.zero_crossing_rate(segment)
        emitted = torchaudio.functional.resample(torch.from_numpy(segment), rate, OUT_RATE_HZ).numpy()
        sf.write(io.BytesIO(), emitted, OUT_RATE_HZ, format="FLAC", subtype="PCM_16")

    def work() -> Outcome:
        size = round(SEGMENT_S * rate)
        speech = decode_samples(task.path, rate, seconds).mean(1)
        for start in range(0, len(speech) - size + 1, size):
            process_segment(speech[start : start + size])
        return Outcome(seconds)

    process_segment(_make_noise(rate))
    return work


def prepare_audiopipe(task: Task) -> Work:
    """Prepare `process_shard` with every metric, on the GPU if there is one."""
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=task.scratch))

    def process(index: int, path: str, videos: int) -> ShardResult:
        config = RunConfig.of(
            catalog="bench", output=str(root / "out"), segments="fixed", window_s=SEGMENT_S, scratch=str(root)
        )
        rows = tuple(Video(f"v{index}_{i}", "en", path, Path(path).stat().st_size) for i in range(videos))
        return process_shard(Shard("en", index, 0, rows), config, "bench")

    def work() -> Outcome:
        count = min(task.shards, task.videos)
        sizes = [len(range(number, task.videos, count)) for number in range(count)]
        with ThreadPoolExecutor(count) as pool:
            results = list(pool.map(lambda index, videos: process(index, task.path, videos), range(count), sizes))
        return Outcome(
            audio_s=math.fsum(result.audio_s for result in results),
            segments=sum(result.segments for result in results),
            stage_s=_sum_by_name(result.stage_s for result in results),
            stage_cpu_s=_sum_by_name(result.stage_cpu_s for result in results),
            queue_depths=dict(results[0].queue_depths),
        )

    with tempfile.TemporaryDirectory(dir=root) as folder:
        path, rate = f"{folder}/warm-up.wav", task.sample_rate_hz
        sf.write(path, _make_noise(12 * rate), rate, subtype="FLOAT")
        process(999, path, 1)
    return work


def prepare_command(task: Task) -> Work:
    """Prepare `audiopipe run` as a user starts it, with its default workers on this process's cores.

    A run of a video per core is measured first; its time, which starts and ends processes, is subtracted.
    """
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=task.scratch))
    # Processes that outlive their parent become children of this one, so that their CPU time counts.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def run(name: str, videos: int) -> tuple[float, float]:
        """Process so many copies of the file, and return the seconds and the CPU seconds."""
        catalog = root / f"{name}.csv"
        rows = [f"v{number},en,COMPLETED,{task.path},{task.seconds}" for number in range(videos)]
        header = "youtube_id,language,status,r2_tar_key,duration_s"
        catalog.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        options = ["--catalog", str(catalog), "--output", str(root / name), "--quiet"]
        options += ["--segments", "fixed", "--window-s", f"{SEGMENT_S}", "--shard-videos", "4", "--scratch", str(root)]
        cpu_s, started = used_cpu_s(), time.perf_counter()
        command = [sys.executable, "-P", "-c", "from audiopipe.cli import main; main()", "run", *options]
        with (root / f"{name}.log").open("wb") as log:
            subprocess.run(command, check=True, cwd=root, stdout=log, stderr=log)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return time.perf_counter() - started, used_cpu_s() - cpu_s

    cores = len(os.sched_getaffinity(0))
    startup_s, startup_cpu_s = run("startup", cores)

    def work() -> Outcome:
        run("whole", cores + task.videos)
        return Outcome(task.seconds * task.videos, startup_s=startup_s, startup_cpu_s=startup_cpu_s)

    return work


def _sum_by_name(times: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for seconds in times:
        total.update(seconds)
    return dict(total)


# In the order of measurement. The baselines come right before audiopipe, because the speed of a shared machine changes.
METHODS: dict[str, Callable[[Task], Work]] = {
    "decode only": prepare_decode,
    "sequential": prepare_sequential,
    "codec floor": prepare_codecs,
    "ffmpeg": prepare_ffmpeg,
    "audiopipe": prepare_audiopipe,
    "audiopipe run": prepare_command,
}


def _peak_mb() -> float:
    """Return the peak resident memory in MB. `ru_maxrss` does not do: it starts with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(method: str, task: Task) -> None:
    """Prepare a method, wait for the start, work, and print the result."""
    torch.set_num_threads(1)
    work = METHODS[method](task)
    ready_mb = _peak_mb()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    cpu_s, started = used_cpu_s(), time.perf_counter()
    outcome = work()
    wall_s = time.perf_counter() - started - outcome.startup_s
    cpu_s = used_cpu_s() - cpu_s - outcome.startup_cpu_s
    sys.stdout.write(ProcessResult(outcome, wall_s, cpu_s, ready_mb, _peak_mb()).to_json() + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Task.from_json(sys.argv[2]))
