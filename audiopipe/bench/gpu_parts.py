"""The parts of the GPU check: `python -m audiopipe.bench.gpu_parts NAME AUDIO OUT` runs one and writes its rows.

A part runs in its own process, so that a crash or a hang of CUDA costs one part. AUDIO is a folder with `speech.webm`,
`speech.m4a` and `scores.npz`; OUT receives `NAME.json`, and the tables of the benchmarks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from audiopipe import kernels
from audiopipe.bench import pipeline, results, scorers
from audiopipe.bench.decoders import decode_samples
from audiopipe.bench.gpu import measure_gpu
from audiopipe.bench.inputs import SEGMENT_S, BenchmarkInput, find_speech
from audiopipe.bench.machine import Machine
from audiopipe.bench.scorer_inputs import read_scores
from audiopipe.bench.task import CheckRow
from audiopipe.config import RunConfig
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.score import ScoredClip, score
from audiopipe.pipeline.shard import process_shard
from audiopipe.scorers.registry import create_scorers
from audiopipe.types import Clip, Shard, Span, Video

__all__ = ["PARTS", "run_part"]

DEVICE = torch.device("cuda")
RATE_HZ, OUT_RATE_HZ = 48_000, 16_000
MIN_COPY_SHARE, MIN_SEGMENTS_PER_S, MIN_FLOOR_SHARE = 0.8, 12_000, 0.85
MAX_DIFFERENCE = 1e-3  # of a metric from that of the CPU, relative above 1
MINUTES_PER_CORE, ROUNDS = 12.0, 2
MAX_RATING_DIFFERENCES = {"dnsmos": 1e-3, "dnsmos_half": 1e-2}
SCORER_SECONDS = (5.0, 9.01, 30.0)
SHARD_VIDEOS = 4
OOM_CLIPS = 128
OOM_HEADROOM_BYTES = 256 << 20  # beyond what is allocated; a batch of 128 clips needs several times as much


def check_machine(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Describe the machine."""
    for name, value in Machine.detect().as_text().items():
        yield CheckRow(name, value)
    if DEVICE.type == "cuda":
        properties = torch.cuda.get_device_properties(DEVICE)
        yield CheckRow("memory of the GPU, GiB", f"{properties.total_memory / 2**30:.0f}")
    yield CheckRow("CUDA of torch", str(torch.version.cuda))


def check_kernels(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Time the kernels from device memory, and from pinned memory to results on the host."""
    targets = {
        "(b) pinned host to results on the host, segments/s": MIN_SEGMENTS_PER_S,
        "(b) share of the pinned copy rate": MIN_COPY_SHARE,
    }
    for result in measure_gpu(on=DEVICE):
        target = targets.get(result.label)
        is_met = None if target is None else float(result.value.replace(",", "")) >= target
        yield CheckRow(result.label, result.value, "" if target is None else f">= {target:,}", is_met)


def check_parity(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Compare every metric, and the resampled signal, with the CPU's on real speech."""
    x = torch.from_numpy(_segments(audio / "speech.webm"))
    lengths = torch.full((len(x),), x.shape[-1])
    on_device, resampled = kernels.measure_and_resample(x.to(DEVICE), RATE_HZ, OUT_RATE_HZ, lengths.to(DEVICE))
    expected, reference = kernels.measure_and_resample(x, RATE_HZ, OUT_RATE_HZ, lengths)
    difference = (on_device.stack().cpu() - expected.stack()).abs() / expected.stack().abs().clamp(min=1.0)
    worst = torch.nan_to_num(difference).amax(0)
    for name, value in zip(kernels.METRICS, worst.tolist(), strict=True):
        yield CheckRow(f"{name}: largest difference", f"{value:.1e}", f"<= {MAX_DIFFERENCE}", value <= MAX_DIFFERENCE)
    error = float((resampled.cpu() - reference).abs().max())
    yield CheckRow("resampled signal: largest difference", f"{error:.1e}", "<= 1e-05", error <= 1e-5)


def check_scorers(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Compare the ratings of DNSMOS with those of speechmos, and time batches of 128 segments."""
    rated = read_scores(audio)
    for name, limit in MAX_RATING_DIFFERENCES.items():
        (scorer,) = create_scorers(name)
        scorer.load(DEVICE)
        values = scorer.score(scorers.make_batch(rated.segments, DEVICE))
        differences = np.abs(np.stack([np.asarray(column) for column in values.values()], axis=1) - rated.ratings)
        for column, worst in zip(values, differences.max(0), strict=True):
            yield CheckRow(f"{name}: {column}, largest difference", f"{worst:.1e}", f"<= {limit}", bool(worst <= limit))
    by_length = {
        seconds: [segment for segment in rated.segments if len(segment) == round(seconds * OUT_RATE_HZ)]
        for seconds in SCORER_SECONDS
    }
    measured = []
    for result in scorers.measure_gpu(["dnsmos"], by_length, DEVICE):
        measured.append(result)
        label = f"{result.task}: segments/s of {result.seconds:g} s"
        row = CheckRow(label, f"{result.segments_per_s:,.0f}")
        for target, value in scorers.check_targets([result]):
            row = replace(row, target=f">= {target.limit:,.0f}", is_met=value >= target.limit)
        yield row
    yield CheckRow("peak memory, MiB", f"{torch.cuda.max_memory_allocated() / 2**20:.0f}")
    scorers.save_results(out, Machine.detect(), measured)


def check_repeat(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Process the same shard twice on the device, and once on the CPU; compare the bytes and the counts."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = [path for path, _, _ in find_speech(audio)] * (SHARD_VIDEOS // 2)
        videos = tuple(Video(f"v{n}", "en", str(p), p.stat().st_size) for n, p in enumerate(paths))
        outputs = {}
        for name, device in (("first", DEVICE.type), ("second", DEVICE.type), ("cpu", "cpu")):
            options = {"device": "cuda" if device == "cuda" else "cpu", "segments": "auto", "scratch": str(root)}
            config = RunConfig.of(catalog="check", output=str(root / name), **options)
            result = process_shard(Shard("en", 0, 0, videos), config, "check")
            outputs[name] = result
            yield CheckRow(
                f"{name}: segments kept of {result.segments}", f"{result.segments_kept} in {result.wall_s:.1f} s"
            )
        is_same = _objects(root / "first") == _objects(root / "second")
        yield CheckRow("the same bytes twice on the device", str(is_same), "True", is_same)
        first, cpu = outputs["first"], outputs["cpu"]
        is_equal = (first.segments, first.segments_kept, first.drops) == (cpu.segments, cpu.segments_kept, cpu.drops)
        yield CheckRow("the same segments as on the CPU", str(is_equal), "True", is_equal)


def check_memory(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Score a batch with plenty of memory, and again with too little for it: the results must be the same."""
    pcm = _segments(audio / "speech.webm")
    rows = [pcm[number % len(pcm)] for number in range(OOM_CLIPS)]
    clips = tuple(Clip("v", number, Span(0.0, SEGMENT_S), RATE_HZ, row) for number, row in enumerate(rows))
    config = RunConfig.of(catalog="check", output="check")
    expected = score(Batch(clips), config, DEVICE)
    yield CheckRow("peak memory of a batch, MiB", f"{torch.cuda.max_memory_allocated() / 2**20:.0f}")
    torch.cuda.empty_cache()
    allowed = (torch.cuda.memory_allocated() + OOM_HEADROOM_BYTES) / torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(allowed)
    limited = score(Batch(clips), config, DEVICE)
    is_same = all(map(_is_same_clip, expected, limited))
    yield CheckRow(f"the same results with {OOM_HEADROOM_BYTES >> 20} MiB", str(is_same), "True", is_same)


def check_pipeline(audio: Path, out: Path) -> Iterator[CheckRow]:
    """Time the whole pipeline with workers as on a node, and save its tables."""
    inputs = [
        BenchmarkInput(name, path, form.sample_rate_hz, seconds, max(1, round(MINUTES_PER_CORE * 60 / seconds)))
        for path, name, form in find_speech(audio)
        for seconds in [_duration_s(path)]
    ]
    measured = pipeline.run_benchmark(inputs, ROUNDS)
    results.save_results(measured, out)
    by_case = {(result.input, result.method, result.cores): result for result in measured}
    for result in measured:
        if result.method == results.AUDIOPIPE:
            share = result.speed / by_case[result.input, results.FLOOR, result.cores].speed
            label = f"{result.input}, {result.cores} cores"
            is_met = share >= MIN_FLOOR_SHARE
            yield CheckRow(f"{label}: share of the codec floor", f"{share:.2f}", f">= {MIN_FLOOR_SHARE}", is_met)
            yield CheckRow(f"{label}: videos/min", f"{result.videos_per_min:.1f}")
            yield CheckRow(f"{label}: hours for 500,000 videos", f"{result.hours:.1f}")


Check = Callable[[Path, Path], Iterator[CheckRow]]

PARTS: dict[str, Check] = {
    "machine": check_machine,
    "kernels": check_kernels,
    "parity": check_parity,
    "scorers": check_scorers,
    "repeat": check_repeat,
    "pipeline": check_pipeline,
    "memory": check_memory,
}


def run_part(name: str, audio: Path, out: Path) -> None:
    """Run a part; after each row, write all rows so far to `NAME.json`, so that a part cut short has results."""
    rows: list[CheckRow] = []
    for row in PARTS[name](audio, out):
        rows.append(row)
        sys.stdout.write(f"{row.label}: {row.value} {row.target}\n")
        sys.stdout.flush()
        (out / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def _segments(path: Path) -> npt.NDArray[np.int16]:
    """Decode a file and cut the mean of its channels into segments of 5 s: [B, 1, T] at 48 kHz."""
    mono = decode_samples(str(path), RATE_HZ).mean(1)
    size = round(SEGMENT_S * RATE_HZ)
    whole = mono[: len(mono) // size * size].reshape(-1, 1, size)
    segments: npt.NDArray[np.int16] = (whole * (kernels.INT16_FULL_SCALE - 1)).round().astype(np.int16)
    return segments


def _duration_s(path: Path) -> float:
    return len(decode_samples(str(path), OUT_RATE_HZ)) / OUT_RATE_HZ


def _objects(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "en").glob("*")}


def _is_same_clip(a: ScoredClip, b: ScoredClip) -> bool:
    return a.drop_reason == b.drop_reason and all(
        np.array_equal(np.asarray(x, np.float64), np.asarray(y, np.float64), equal_nan=True)
        for x, y in ((a.metrics, b.metrics), (_or_empty(a.samples), _or_empty(b.samples)))
    )


def _or_empty(samples: npt.NDArray[np.int16] | None) -> npt.NDArray[np.int16]:
    return np.empty(0, np.int16) if samples is None else samples


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_part(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
