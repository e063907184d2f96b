"""Saved benchmarks: one JSON a bench and a machine, and what in them the bars ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from audiopipe.errors import ConfigError

__all__ = ["OURS", "PARAMETERS", "ResultFile", "Saved", "read_results"]

PARAMETERS = ("folder", "machine", "rerun", "quick")
OURS = "audiopipe"
LOUDNESS_CASE = {"task": "integrated_loudness", "seconds": 10, "sample_rate": 48_000, "threads": 1}
Row = dict[str, Any]


@dataclass(frozen=True)
class ResultFile:
    """One saved benchmark: which bench, when, on what, and what it found."""

    name: str
    bench: str
    at: datetime
    machine: dict[str, str]
    body: dict[str, Any]

    @property
    def device(self) -> str:
        """`H200, 16 cores` or `AMD EPYC, 2 cores`."""
        gpu = self.machine.get("gpu", "none")
        cpu = self.machine.get("cpu", "a CPU that it does not name")
        return f"{cpu if gpu == 'none' else gpu}, {self.machine.get('cores', '?')} cores"


@dataclass(frozen=True)
class Saved:
    """All files of a folder, the oldest first."""

    files: tuple[ResultFile, ...]

    def of(self, bench: str) -> list[ResultFile]:
        return [file for file in self.files if file.bench == bench]

    @cached_property
    def kernel_rows(self) -> list[tuple[ResultFile, Row]]:
        """Every contender in every case, of the newest file of each machine."""
        newest = {file.device: file for file in self.of("kernels")}
        return [(file, row) for file in newest.values() for row in file.body.get("cpu", [])]

    @cached_property
    def readings(self) -> list[tuple[ResultFile, Row]]:
        """Every way on every material, of the newest file of each machine."""
        newest = {file.device: file for file in self.of("pipeline")}
        return [(file, row) for file in newest.values() for row in file.body.get("readings", [])]

    def loudness_times(self, contender: str) -> tuple[ResultFile, float] | None:
        """How many times as long a contender takes as we do: one core, 10 s at 48 kHz, the batch that suits us best."""
        rows = [(file, row) for file, row in self.kernel_rows if LOUDNESS_CASE.items() <= row.items()]
        mine = [(file, row) for file, row in rows if row["contender"] == OURS]
        if not mine:
            return None
        file, best = min(mine, key=lambda item: float(item[1]["ms_per_item"]))
        for other, row in rows:
            if other is file and row["contender"] == contender and row["batch"] == best["batch"]:
                return file, float(row["times_ours"])
        return None

    def gpu_value(self, what: str) -> tuple[ResultFile, float] | None:
        """A number of the GPU's table, by what stands before it."""
        for file in reversed(self.of("kernels")):
            for row in file.body.get("gpu", []):
                if str(row["what"]).startswith(what):
                    return file, float(str(row["value"]).replace(",", ""))
        return None

    def speed_over(self, way: str, gpu: bool) -> tuple[ResultFile, float] | None:
        """Our speed on one core over another way's, on the material where it is least."""
        found = []
        for file, row in self.readings:
            if row["name"] != OURS or row["cores"] != 1 or (file.machine.get("gpu", "none") != "none") != gpu:
                continue
            theirs = [r for f, r in self.readings if f is file and (r["name"], r["cores"]) == (way, 1)]
            found += [(file, _speed(row) / _speed(r)) for r in theirs if r["material"] == row["material"]]
        return min(found, key=lambda item: item[1], default=None)

    def scaling(self) -> tuple[ResultFile, float] | None:
        """Our speed on the most cores over that of as many times one core, on the material where it is least."""
        found = []
        for file, row in self.readings:
            ones = [r for f, r in self.readings if f is file and (r["name"], r["cores"]) == (OURS, 1)]
            same = [one for one in ones if one["material"] == row["material"]]
            if row["name"] == OURS and row["cores"] > 1 and same:
                found.append((file, _speed(row) / row["cores"] / _speed(same[0])))
        return min(found, key=lambda item: item[1], default=None)

    def scale(self, field: str) -> tuple[ResultFile, float] | None:
        files = [file for file in self.of("scale") if field in file.body]
        return (files[-1], float(files[-1].body[field])) if files else None


def _speed(row: Row) -> float:
    return float(row["audio_s"]) / float(row["wall_s"])


def read_results(folder: str = "reports/benchmarks", machine: str | None = None) -> Saved:
    """All benchmarks that were saved in a folder, or those of one machine.

    Args:
        machine: a part of its CPU's or GPU's name.

    Raises:
        ConfigError: there is no such folder, or a file in it is no benchmark.
    """
    if not Path(folder).is_dir():
        raise ConfigError(
            f"parameter 'folder' {folder!r}: there is no such folder; `audiopipe bench … --save` makes it"
        )
    files = [_read(path) for path in sorted(Path(folder).glob("*.json")) if not path.name.startswith("rates-")]
    chosen = [file for file in files if (machine or "").lower() in file.device.lower()]
    return Saved(tuple(sorted(chosen, key=lambda file: (file.at, file.name))))


def _read(path: Path) -> ResultFile:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        machine = {name: str(value) for name, value in body["machine"].items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} is not a saved benchmark ({type(error).__name__}: {error}): move it away") from None
    return ResultFile(
        path.stem, path.name.split("-")[0].removesuffix(".json"), _date(path, body, machine), machine, body
    )


def _date(path: Path, body: dict[str, Any], machine: dict[str, str]) -> datetime:
    """When it was measured: what the file says, else when it was written."""
    for told in (body.get("date"), body.get("at"), machine.get("date")):
        if isinstance(told, str):
            at = datetime.fromisoformat(told)
            return at if at.tzinfo else at.replace(tzinfo=UTC)
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
