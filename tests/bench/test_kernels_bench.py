import json
import platform
from functools import partial
from pathlib import Path

import pytest
import torch
from fake_gpu import DEVICE, fake_gpu

from audiopipe import kernels
from audiopipe.bench import gpu
from audiopipe.bench import kernels as bench
from audiopipe.bench.machine import Machine
from audiopipe.bench.memory import measure_peak_bytes


def test_results_are_saved_as_markdown_and_json_without_hostname(tmp_path: Path) -> None:
    rows = [
        bench.KernelResult("resample", name, 5, 48_000, 16, 1, ms, ms)
        for name, ms in (("audiopipe", 1.0), ("soxr HQ", 2.5))
    ]
    machine = Machine.detect()
    path = bench.save_results(tmp_path / "new", machine, rows, [], [bench.format_rows(rows)])
    text = path.read_text()
    assert "| resample | soxr HQ | 5 s at 48 kHz | 16 | 1 | 2.500 | 2.50 |" in text
    data = json.loads(path.with_suffix(".json").read_text())
    assert data["machine"] == machine.as_text()
    assert data["cpu"][1]["contender"] == "soxr HQ"
    assert platform.node() not in text + path.name + path.with_suffix(".json").read_text()


def test_contenders_take_turns_and_count_per_item() -> None:
    calls: list[str] = []
    best = bench.measure_best_ms({"a": (lambda: calls.append("a"), 1), "b": (lambda: calls.append("b"), 4)}, budget_s=0)
    assert calls == ["a", "b"] * 3
    assert 0 < best["b"] < float("inf")


def test_the_signal_is_always_the_same() -> None:
    x = bench.make_signal(2, 16_000, 1)
    assert x.shape == (2, 1, 16_000)
    assert x.abs().max() < 1
    assert torch.equal(x, bench.make_signal(2, 16_000, 1))


def test_memory_counts_what_is_held_at_one_time() -> None:
    def call() -> torch.Tensor:
        for _ in range(5):
            half = torch.ones(1 << 18)  # 1 MiB each, one after another
        return torch.cat([half, half])

    assert measure_peak_bytes(call) == pytest.approx(3 << 20, rel=0.1)


def test_memory_of_the_kernels_is_bounded_by_tiling() -> None:
    single, many = bench.make_signal(1, 48_000, 10), bench.make_signal(24, 48_000, 10)
    small, large = (measure_peak_bytes(partial(kernels.measure, x, 48_000)) for x in (single, many))
    assert small < 10 * single.nbytes
    assert large < small + many.nbytes / 4


def test_the_table_of_a_gpu_is_made_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("_SECONDS", 1), ("_BATCH", 3), ("_COPY_BYTES", 1 << 12)):
        monkeypatch.setattr(gpu, name, small)
    with fake_gpu(monkeypatch) as gpu_calls:
        rows = {row.label: row.value for row in gpu.measure_gpu(quick=True, on=DEVICE)}
    assert gpu_calls["operations"] > 0
    assert float(rows["(a) from device memory, segments/s"].replace(",", "")) > 0
    assert float(rows["(b) pinned host to results on the host, segments/s"].replace(",", "")) > 0
    assert rows["bytes over the bus per segment"] == f"{2 * 64_000 + 4 * len(kernels.METRICS):,}"
