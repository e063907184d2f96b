import json
import platform
from pathlib import Path

import torch

from audiopipe.bench import kernels as bench
from audiopipe.bench import machine


def test_results_are_saved_as_markdown_and_json_without_naming_the_host(tmp_path: Path) -> None:
    rows = [
        bench.Row("resample", name, 5, 48_000, 16, 1, ms, ms) for name, ms in (("audiopipe", 1.0), ("soxr HQ", 2.5))
    ]
    facts = machine.describe()
    path = bench.save_results(tmp_path / "new", facts, rows, [], [bench.rows_table(rows)])
    text = path.read_text()
    assert "| resample | soxr HQ | 5 s at 48 kHz | 16 | 1 | 2.500 | 2.50 |" in text
    data = json.loads(path.with_suffix(".json").read_text())
    assert data["machine"] == facts
    assert data["cpu"][1]["contender"] == "soxr HQ"
    assert platform.node() not in text + path.name + path.with_suffix(".json").read_text()


def test_contenders_take_turns_and_count_per_item() -> None:
    calls: list[str] = []
    best = bench.best_ms({"a": (lambda: calls.append("a"), 1), "b": (lambda: calls.append("b"), 4)}, budget_s=0)
    assert calls == ["a", "b"] * 3
    assert 0 < best["b"] < float("inf")


def test_the_material_is_the_same_every_time() -> None:
    x = bench.speech_like(2, 16_000, 1)
    assert x.shape == (2, 1, 16_000)
    assert x.abs().max() < 1
    assert torch.equal(x, bench.speech_like(2, 16_000, 1))
