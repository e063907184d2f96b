"""Build the segment table for a page and for JupyterLab."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from audiopipe.dataset.reader import Dataset
from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.excerpts import MAX_S
from audiopipe.report.page import Html, esc
from audiopipe.report.segment_table.columns import TableColumn
from audiopipe.report.segment_table.queries import KEY_COLUMNS, SegmentQueries
from audiopipe.report.segment_table.sample import draw_sample
from audiopipe.types import shard_name

if TYPE_CHECKING:
    from audiopipe.report.segment_table.widget import SegmentWidget

__all__ = ["SegmentTable", "segment_table"]

SCRIPTS = ("filters", "sound", "histograms", "editors", "view")
JUPYTERLAB = "JPY_SESSION_NAME"  # set in the kernels that a Jupyter server starts


@dataclass(frozen=True)
class SegmentTable:
    """The segment table of a dataset: a page with a random sample, and in JupyterLab a table of all segments.

    Args:
        dataset: whose segments it shows.
        sampled: the shards from which the sample is drawn.
        language: the option of `audiopipe select` for these languages, or empty.
    """

    dataset: Dataset
    sampled: Dataset
    total: int
    language: str = ""

    def __repr__(self) -> str:
        return f"<table of {self.total:,} segments>"

    def _repr_html_(self) -> str:
        """Return the page; in JupyterLab the kernel then takes over its table."""
        if os.environ.get(JUPYTERLAB):
            return page.with_styles(self.page(self.widget.settings["id"]))._repr_html_()
        return page.with_styles(self.page())._repr_html_()

    def page(self, name: str = "") -> Html:
        """Return the table of a random sample, with the audio of a part of it. It needs no network and no kernel.

        Args:
            name: of the table, by which the kernel's side finds it.
        """
        sample = draw_sample(self.sampled)
        if not sample.rows:
            return page.note("There are no segments.")
        settings = self._settings(sample.columns, _describe_sample(len(sample.rows), self.total, len(sample.audio)))
        data = {**settings, "rows": sample.rows, "audio": sample.audio, "total": self.total}
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        return Html(
            f'<div class="browse" data-table="{name}"><noscript>{esc(settings["note"])} It needs JavaScript.</noscript>'
            f'<script type="application/json">{text}</script>'
            f"<script>(() => {{\n{_script((*SCRIPTS, 'sample'))}\n}})();</script></div>"
        )

    @cached_property
    def widget(self) -> SegmentWidget:
        """The kernel's side of the table in JupyterLab, for all segments."""
        from audiopipe.report.segment_table.widget import SegmentWidget  # noqa: PLC0415  # imports ipywidgets

        queries = SegmentQueries(self.dataset)
        note = f"All {self.total:,} segments, read from the dataset page by page."
        settings = {**self._settings(queries.columns, note), "id": uuid.uuid4().hex}
        return SegmentWidget(_script((*SCRIPTS, "kernel")), settings, queries)

    def _settings(self, columns: Iterable[TableColumn], note: str) -> dict[str, Any]:
        url = self.dataset.url
        return {
            "columns": [asdict(column) for column in columns],
            "keys": KEY_COLUMNS,
            "note": note,
            "output": url,
            "selection": f"{url.rstrip('/')}-selected",
            "languages": self.language,
            "conditions": self.dataset.conditions,
            "rate_hz": self.dataset.run.config["sample_rate"],
        }


def segment_table(source: DatasetTables | Dataset) -> SegmentTable:
    """Return the table of a report's dataset, or of any dataset or view of one.

    In JupyterLab it reads all segments from the dataset, as they are asked for. Elsewhere it is a page with a sample.
    """
    if isinstance(source, Dataset):
        with source.connect() as connection:
            return SegmentTable(source, source, connection.table("segments").shape[0])
    shards = sorted({shard_name(*row) for row in zip(*_shards(source), strict=True)})
    language = "" if source.language == "all" else source.language
    return SegmentTable(source.dataset, source.dataset.select_shards(shards), source.total.segments, language)


def _describe_sample(rows: int, total: int, audio: int) -> str:
    drawn = f"A random sample of {rows:,} of {total:,} segments" if rows < total else f"All {total:,} segments"
    return f"{drawn}; {audio:,} with audio (the first {MAX_S:g} s)." if audio else f"{drawn}; none with audio."


def _shards(tables: DatasetTables) -> tuple[list[str], list[int]]:
    rows = tables.segments[["language", "shard"]].drop_duplicates()
    return rows["language"].tolist(), rows["shard"].tolist()


def _script(names: Iterable[str]) -> str:
    folder = files("audiopipe.report").joinpath("scripts")
    return "\n".join(folder.joinpath(f"segments_{name}.js").read_text(encoding="utf-8") for name in names)
