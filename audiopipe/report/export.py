"""Export a saved notebook as one HTML file that needs no network, fonts or scripts from elsewhere.

The file goes to a folder or to an object store; `frame` renders the page around the notebook's outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from audiopipe import errors
from audiopipe.extras import require_extra
from audiopipe.report import frame, index, page
from audiopipe.report.page import esc
from audiopipe.store.objects import Store

with require_extra("notebooks", "exporting a notebook"):
    import nbformat
    from nbconvert.filters import ansi2html, markdown2html

__all__ = ["export_notebook", "find_errors", "read_cell_text", "write_index"]

Target = TypeVar("Target", str, Path)
Node = Any  # a notebook, a cell or an output of nbformat: a dict with attributes

# Removed from pieces, because the page has the sheet in its head and the script at its end.
STYLE = re.compile(r'<style>.*?</style>|<script class="charts">.*?</script>', re.DOTALL)
METADATA = re.compile(r'<template class="metadata">(.*?)</template>', re.DOTALL)
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>', re.DOTALL)
# Cells for readers of the notebook, and papermill's red banner: the page shows an error in another way.
HIDDEN = {"lab-only", "papermill-error-cell-tag"}


def export_notebook(notebook: Path, html: Target) -> Target:
    """Write a notebook's text and outputs, without its code, to `html`, a path or a URL; return `html`.

    In a folder named `reports`, the index page of the folder is written again.

    The page does not use a template of nbconvert, because those load scripts and contain half a megabyte of styles.
    nbconvert converts Markdown and the colors of terminal output.

    Raises:
        PermanentStoreError, StoreError: the object store rejects the page or fails.
    """
    content = nbformat.read(notebook, as_version=4)
    body = "\n".join(_render_cells(content.cells))
    folder, _, name = str(html).rpartition("/")
    store = Store(folder or ".")
    title = _find_title(content, notebook)
    provenance = frame.provenance(notebook.name, content.metadata.get("papermill", {}))
    _write(store, name, frame.render_page(title, body, provenance, index.meta_tag(title, _read_metadata(body))))
    if store.root.rpartition("/")[2] == index.FOLDER:
        write_index(store)
    return html


def write_index(folder: Store) -> str:
    """Write the page that lists the reports of a folder, and return its address."""
    listing = f'<h1>Reports</h1><div class="ap">{index.render_index(folder).markup}</div>'
    _write(folder, index.NAME, frame.render_page("Reports", listing, frame.provenance()))
    return f"{folder.url}/{index.NAME}"


def _write(store: Store, name: str, page: str) -> None:
    if store.local_folder is not None:
        store.local_folder.mkdir(parents=True, exist_ok=True)
        (store.local_folder / name).write_text(page, encoding="utf-8")
        return
    with TemporaryDirectory() as folder:
        # Uploaded as a file, so that the store sets the content type from its name and browsers display the page.
        (Path(folder) / name).write_text(page, encoding="utf-8")
        store.upload(Path(folder) / name, name)


def _read_metadata(body: str) -> dict[str, str | float | None]:
    """Read what `page.embed_metadata` put into the pieces of a page; the last value of a name counts."""
    values: dict[str, str | float | None] = {}
    for text in METADATA.findall(body):
        values |= json.loads(unescape(text))
    return values


def read_cell_text(notebook: Path, tag: str) -> str:
    """Return what the cells with a tag printed in a saved notebook, or an empty string."""
    content = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in content.cells if tag in cell.metadata.get("tags", ())]
    streams = [output for cell in cells for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
    return "".join(output["text"] for output in streams if output["name"] == "stdout").rstrip("\n")


def find_errors(notebook: Path) -> list[str]:
    """Return the errors that a saved notebook stopped at: name and message."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return [f"{item['ename']}: {item['evalue']}" for item in outputs if item["output_type"] == "error"]


def _find_title(content: Node, notebook: Path) -> str:
    """Return the first heading of the notebook, else the name of its file."""
    for cell in content.cells:
        heading = re.search(r"^# (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return str(heading[1].strip())
    return notebook.stem


def _render_cells(cells: Iterable[Node]) -> Iterator[str]:
    """Render cells up to the one that failed, since later ones are headings without content."""
    for cell in cells:
        yield from _render_cell(cell)
        if any(output["output_type"] == "error" for output in cell.get("outputs", ())):
            return


def _render_cell(cell: Node) -> Iterator[str]:
    if cell.cell_type == "markdown" and not HIDDEN & set(cell.metadata.get("tags", ())):
        yield f'<div class="markdown">{ANCHOR.sub("", markdown2html(cell.source))}</div>'
    for output in cell.get("outputs", ()):
        yield from _render_output(output)


def _render_output(output: Node) -> Iterator[str]:
    if output["output_type"] == "stream":
        yield f"<pre>{ansi2html(output['text'])}</pre>"
    elif output["output_type"] == "error":
        yield from _render_error(output)
    else:
        yield from _render_data(output.get("data", {}))


def _render_error(output: Node) -> Iterator[str]:
    """Render an error of this package with its remedy, and any other error with its traceback."""
    name, is_known = output["ename"], output["ename"] in errors.__all__
    sentences = [esc(name), esc(output["evalue"])]
    if is_known:
        sentences.append(f"What to do: {page.inline_code(getattr(errors, name).remedy).markup}.")
    yield f'<div class="ap">{page.verdict("bad", sentences).markup}</div>'
    if not is_known:
        trace = ansi2html("\n".join(output["traceback"]))
        yield f"<details><summary>Where it was raised</summary><pre>{trace}</pre></details>"


def _render_data(data: dict[str, str]) -> Iterator[str]:
    """Render the richest format of an output."""
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
