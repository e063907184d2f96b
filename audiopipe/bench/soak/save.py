"""Save a soak as numbers and as a page."""

from __future__ import annotations

import json
from pathlib import Path

from audiopipe.bench.soak.page import render_soak
from audiopipe.bench.soak.result import SoakResult

__all__ = ["save_result"]


def save_result(result: SoakResult, folder: Path) -> list[Path]:
    """Write `soak.html` and `soak.json`, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    html, data = folder / "soak.html", folder / "soak.json"
    data.write_text(json.dumps(result.to_dict()) + "\n", encoding="utf-8")
    html.write_text(render_soak(result), encoding="utf-8")
    return [html, data]
