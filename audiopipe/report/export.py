"""A saved notebook as one HTML file that needs nothing else: no network, no fonts, no scripts from outside.

It goes to a folder or to an object store; what is around a report's pieces is of `frame`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from audiopipe import errors
from audiopipe.extras import require_extra
from audiopipe.report import frame, index, page
from audiopipe.report.page import esc
from audiopipe.report.quality import remedy
from audiopipe.store.objects import Store

with require_extra("notebooks", "exporting a notebook"):
    import nbformat
    from nbconvert.filters import ansi2html, markdown2html

__all__ = ["export_notebook", "read_cell_text"]

Place = TypeVar("Place", str, Path)

STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)  # the page has it once, in its head
FACTS = re.compile(r'<template class="facts">(.*?)</template>', re.DOTALL)
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>', re.DOTALL)
# For whoever reads the notebook itself, and papermill's own red banners: the page shows an error in its own way.
HIDDEN = {"lab-only", "papermill-error-cell-tag"}


def export_notebook(notebook: Path, html: Place) -> Place:
    """Write a notebook's text and pictures, without its code, to `html`, a path or a URL; returns that.

    In a folder named `reports`, as an output has one, the index page beside it is made anew.

    The page is written here and not by a template of nbconvert's: those load scripts, and bring half a megabyte of
    styles. What nbconvert does well, Markdown and terminal colours, is taken from it.

    Raises:
        PermanentStoreError, StoreError: the object store does not take it.
    """
    content = nbformat.read(notebook, as_version=4)
    body = "\n".join(_body(content.cells))
    folder, _, name = str(html).rpartition("/")
    store = Store(folder or ".")
    title = _title(content, notebook)
    made = frame.provenance(notebook.name, content.metadata.get("papermill", {}))
    _put(store, name, frame.render_page(title, body, made, index.meta_tag(title, _facts(body))))
    if store.root.rpartition("/")[2] == index.FOLDER:
        listed = f'<h1>Reports</h1><div class="ap">{index.render_index(store).markup}</div>'
        _put(store, index.NAME, frame.render_page("Reports", listed, frame.provenance()))
    return html


def _put(store: Store, name: str, page: str) -> None:
    if store.local_folder is not None:
        store.local_folder.mkdir(parents=True, exist_ok=True)
        (store.local_folder / name).write_text(page, encoding="utf-8")
        return
    with TemporaryDirectory() as folder:
        # As a file, whose name tells the store that it is HTML: a browser shows it then instead of saving it.
        (Path(folder) / name).write_text(page, encoding="utf-8")
        store.upload(Path(folder) / name, name)


def _facts(body: str) -> dict[str, Any]:
    """What the pieces of a page say of its run (`page.facts`); the last one counts."""
    told: dict[str, Any] = {}
    for found in FACTS.findall(body):
        told |= json.loads(unescape(found))
    return told


def read_cell_text(notebook: Path, tag: str) -> str:
    """What the cell with this tag printed in a saved notebook; empty if it printed nothing or there is none."""
    content = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in content.cells if tag in cell.metadata.get("tags", ())]
    streams = [output for cell in cells for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
    return "".join(output["text"] for output in streams if output["name"] == "stdout").rstrip("\n")


def _title(content: Any, notebook: Path) -> str:
    """The name that the notebook's outputs give the page, else its first heading, else the file's name."""
    for cell in content.cells:
        found = re.search(r"^# (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if found:
            return str(found[1].strip())
    return notebook.stem


def _body(cells: Iterable[Any]) -> Iterator[str]:
    """All cells, up to the one that failed: after it there are only headings without content."""
    for cell in cells:
        yield from _cell(cell)
        if any(output["output_type"] == "error" for output in cell.get("outputs", ())):
            return


def _cell(cell: Any) -> Iterator[str]:
    if cell.cell_type == "markdown" and not HIDDEN & set(cell.metadata.get("tags", ())):
        yield f'<div class="markdown">{ANCHOR.sub("", markdown2html(cell.source))}</div>'
    for output in cell.get("outputs", ()):
        yield from _output(output)


def _output(output: Mapping[str, Any]) -> Iterator[str]:
    if output["output_type"] == "stream":
        yield f"<pre>{ansi2html(output['text'])}</pre>"
    elif output["output_type"] == "error":
        yield from _error(output)
    else:
        yield from _data(output.get("data", {}))


def _error(output: Mapping[str, Any]) -> Iterator[str]:
    """One of ours with what to do about it; of any other, where it was raised."""
    kind, ours = output["ename"], output["ename"] in errors.__all__
    told = [
        esc(kind),
        esc(output["evalue"]),
        *([f"What to do: {page.inline_code(remedy(kind)).markup}."] if ours else []),
    ]
    yield f'<div class="ap">{page.verdict("bad", told).markup}</div>'
    if not ours:
        trace = ansi2html("\n".join(output["traceback"]))
        yield f"<details><summary>Where</summary><pre>{trace}</pre></details>"


def _data(data: Mapping[str, str]) -> Iterator[str]:
    """The richest form of an output."""
    if "text/html" in data:
        yield STYLE.sub("", data["text/html"])
    elif "image/png" in data:
        yield f'<figure><img alt="" src="data:image/png;base64,{data["image/png"].strip()}"></figure>'
    elif "image/svg+xml" in data:
        yield f"<figure>{data['image/svg+xml']}</figure>"
    elif "text/markdown" in data:
        yield markdown2html(data["text/markdown"])
    elif data.get("text/plain"):
        yield f"<pre>{esc(data['text/plain'])}</pre>"
