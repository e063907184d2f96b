"""A saved notebook as one HTML file that needs nothing else: no network, no fonts, no scripts from outside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.filters import ansi2html, markdown2html

from audiopipe.report import index, page
from audiopipe.report.css import PAGE, PIECES
from audiopipe.report.page import esc

__all__ = ["export", "text_of"]

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
{meta}
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
"""
FOOT = "\n<footer>audiopipe · {name}</footer>\n</main>\n</body>\n</html>\n"
STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)  # the page has it once, in its head
FACTS = re.compile(r'<template class="facts">(.*?)</template>', re.DOTALL)
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>', re.DOTALL)
# For whoever reads the notebook itself, and papermill's own red banners: the page shows an error in its own way.
HIDDEN = {"lab-only", "papermill-error-cell-tag"}


def export(notebook: Path, html: Path) -> Path:
    """Write a notebook's text and pictures, without its code, to `html`; returns that path.

    In a folder named `reports`, as an output has one, the index page beside it is made anew.

    The page is written here and not by a template of nbconvert's: those load scripts, and bring half a megabyte of
    styles. What nbconvert does well, Markdown and terminal colours, is taken from it.
    """
    content = nbformat.read(notebook, as_version=4)
    body = "\n".join(_body(content.cells))
    html.parent.mkdir(parents=True, exist_ok=True)
    title = _title(content, notebook)
    html.write_text(_page(title, body, notebook.stem, index.meta(title, _facts(body))), encoding="utf-8")
    if html.parent.name == index.FOLDER:
        shown = index.content(html.parent).markup
        listed = f'<h1>Reports</h1><div class="ap">{shown}</div>'
        (html.parent / index.NAME).write_text(_page("Reports", listed, "index"), encoding="utf-8")
    return html


def _page(title: str, body: str, name: str, meta: str = "") -> str:
    head = HEAD.format(title=esc(f"{title} · audiopipe"), css=PAGE + PIECES, meta=meta)
    return head + body + FOOT.format(name=esc(name))


def _facts(body: str) -> dict[str, Any]:
    """What the pieces of a page say of its run (`page.facts`); the last one counts."""
    told: dict[str, Any] = {}
    for found in FACTS.findall(body):
        told |= json.loads(unescape(found))
    return told


def text_of(notebook: Path, tag: str) -> str:
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
        trace = "\n".join(output["traceback"])
        told = page.verdict("bad", [esc(output["ename"]), esc(output["evalue"])])
        yield f'<div class="ap">{told.markup}</div>'
        yield f"<details><summary>Where</summary><pre>{ansi2html(trace)}</pre></details>"
    else:
        yield from _data(output.get("data", {}))


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
