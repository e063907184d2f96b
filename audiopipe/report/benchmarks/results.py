"""Read saved benchmarks: one JSON file for each benchmark and machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from audiopipe.errors import ConfigError
from audiopipe.report.benchmarks.rows import (
    AUDIOPIPE,
    Case,
    GpuRow,
    JsonObject,
    KernelRow,
    PipelineRow,
    ScaleRow,
    ScorerRow,
)

__all__ = ["PARAMETERS", "Measurement", "ResultFile", "ResultFiles", "read_results"]

PARAMETERS = ("folder", "machine", "rerun", "quick")
OTHERS = ("rates", "requests", "soak")  # rates of the estimate; benchmarks that write their own page


@dataclass(frozen=True)
class ResultFile:
    """One saved benchmark. Only the rows of its benchmark are filled."""

    name: str
    benchmark: str
    measured_at: datetime
    machine: Mapping[str, str]
    kernels: tuple[KernelRow, ...] = ()
    gpu: tuple[GpuRow, ...] = ()
    pipelines: tuple[PipelineRow, ...] = ()
    scale: ScaleRow | None = None
    scorers: tuple[ScorerRow, ...] = ()

    @property
    def device(self) -> str:
        """`H200, 16 cores` or `AMD EPYC, 2 cores`."""
        cpu = self.machine.get("cpu", "unknown CPU")
        return f"{self.machine['gpu'] if self.has_gpu else cpu}, {self.machine.get('cores', '?')} cores"

    @property
    def has_gpu(self) -> bool:
        return self.machine.get("gpu", "none") != "none"

    def pipeline(self, method: str, input_name: str, cores: int = 1) -> PipelineRow | None:
        """Return the row of a pipeline on an input and a number of cores, None if it was not measured."""
        rows = (row for row in self.pipelines if (row.method, row.input, row.cores) == (method, input_name, cores))
        return next(rows, None)


class Measurement(NamedTuple):
    """A number and the file that it comes from."""

    file: ResultFile
    value: float


@dataclass(frozen=True)
class ResultFiles:
    """All saved benchmarks of a folder, the oldest first."""

    files: tuple[ResultFile, ...]

    def of(self, benchmark: str) -> list[ResultFile]:
        return [file for file in self.files if file.benchmark == benchmark]

    def _newest(self, benchmark: str) -> list[ResultFile]:
        """Return the newest file of each machine."""
        return list({file.device: file for file in self.of(benchmark)}.values())

    @cached_property
    def kernel_files(self) -> list[ResultFile]:
        return [file for file in self._newest("kernels") if file.kernels]

    @cached_property
    def pipeline_files(self) -> list[ResultFile]:
        return [file for file in self._newest("pipeline") if file.pipelines]

    @cached_property
    def scorer_files(self) -> list[ResultFile]:
        return [file for file in self._newest("scorers") if file.scorers]

    def scorer_row(self, task: str, contender: str, seconds: float, device: str = "cpu") -> Measurement | None:
        """Return the lowest ratio of a contender of all machines, or the most segments per second on a GPU."""
        values = [
            Measurement(file, row.ratio if device == "cpu" else row.segments_per_s)
            for file in self.scorer_files
            for row in file.scorers
            if (row.task, row.contender, row.seconds, row.device) == (task, contender, seconds, device)
        ]
        choose = min if device == "cpu" else max
        return choose(values, key=lambda item: item.value, default=None)

    @property
    def scale_rows(self) -> list[tuple[ResultFile, ScaleRow]]:
        return [(file, file.scale) for file in self.of("scale") if file.scale is not None]

    def loudness_ratio(self, contender: str) -> Measurement | None:
        """Return a contender's time divided by audiopipe's: one core, 10 s at 48 kHz, the batch best for audiopipe."""
        rows = [(file, row) for file in self.kernel_files for row in file.kernels if _is_loudness(row)]
        audiopipe = [(file, row) for file, row in rows if row.contender == AUDIOPIPE]
        if not audiopipe:
            return None
        file, best = min(audiopipe, key=lambda item: item[1].ms_per_item)
        for other, row in rows:
            if other is file and row.contender == contender and row.case == best.case:
                return Measurement(file, row.relative_time)
        return None

    def gpu_value(self, label: str) -> Measurement | None:
        """Return the newest number of the GPU benchmark whose label starts with `label`."""
        for file in reversed(self.of("kernels")):
            for row in file.gpu:
                if row.label.startswith(label):
                    return Measurement(file, float(row.value.replace(",", "")))
        return None

    def speed_ratio(self, baseline: str, gpu: bool, method: str = AUDIOPIPE, codec: str = "") -> Measurement | None:
        """Return audiopipe's speed on one core divided by a baseline's; the lowest of all inputs of a codec."""
        ratios = [
            Measurement(file, row.speed / other.speed)
            for file in self.pipeline_files
            for row in file.pipelines
            if (row.method, row.cores, file.has_gpu) == (method, 1, gpu) and row.input.lower().startswith(codec)
            if (other := file.pipeline(baseline, row.input))
        ]
        return min(ratios, key=lambda ratio: ratio.value, default=None)

    def scaling(self) -> Measurement | None:
        """Return audiopipe's speed per core on several cores divided by that on one; the lowest of all inputs."""
        ratios = [
            Measurement(file, row.speed / row.cores / one_core.speed)
            for file in self.pipeline_files
            for row in file.pipelines
            if row.method == AUDIOPIPE and row.cores > 1 and (one_core := file.pipeline(AUDIOPIPE, row.input))
        ]
        return min(ratios, key=lambda ratio: ratio.value, default=None)

    def scale(self, value: Callable[[ScaleRow], float]) -> Measurement | None:
        """Return a number of the newest scale benchmark."""
        rows = self.scale_rows
        return Measurement(rows[-1][0], value(rows[-1][1])) if rows else None


def _is_loudness(row: KernelRow) -> bool:
    return row.task == "integrated_loudness" and row.case == Case(10, 48_000, row.case.batch, 1)


def read_results(folder: str = "reports/benchmarks", machine: str | None = None) -> ResultFiles:
    """Read all benchmarks saved in a folder, or those of one machine.

    Args:
        machine: a part of the name of its CPU or GPU, in any case.

    Raises:
        ConfigError: the folder does not exist, or a file in it is not a saved benchmark.
    """
    if not Path(folder).is_dir():
        raise ConfigError(f"parameter 'folder' {folder!r}: no such folder; `audiopipe bench … --save` creates it")
    files = [_read_file(path) for path in sorted(Path(folder).glob("*.json")) if _benchmark_of(path) not in OTHERS]
    chosen = [file for file in files if (machine or "").lower() in file.device.lower()]
    return ResultFiles(tuple(sorted(chosen, key=lambda file: (file.measured_at, file.name))))


def _benchmark_of(path: Path) -> str:
    return path.name.split("-")[0].removesuffix(".json")


def _read_file(path: Path) -> ResultFile:
    benchmark = _benchmark_of(path)
    try:
        body: JsonObject = json.loads(path.read_text(encoding="utf-8"))
        machine = {name: str(value) for name, value in body["machine"].items()}
        return ResultFile(
            path.stem,
            benchmark,
            _measured_at(path, [body.get("date"), body.get("at"), machine.get("date")]),
            machine,
            tuple(map(KernelRow.of, body.get("cpu", []))),
            tuple(map(GpuRow.of, body.get("gpu", []))),
            tuple(map(PipelineRow.of, body.get("results", []))),
            ScaleRow.of(body) if benchmark == "scale" else None,
            tuple(map(ScorerRow.of, body.get("scorers", []))),
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path} is not a saved benchmark ({reason}): move it to another folder") from None


def _measured_at(path: Path, dates: list[str | None]) -> datetime:
    """Return the first date that the file states, else the time it was written."""
    for date in dates:
        if isinstance(date, str):
            time = datetime.fromisoformat(date)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
