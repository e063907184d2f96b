"""Define the command that looks at data before a run: inspect."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from audiopipe.cli.main import main
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError

if TYPE_CHECKING:
    from audiopipe.catalog.inspection import Inspection

__all__ = ["inspect"]

FIELDS = ("columns", "keep_columns", "language_from", "source_prefix", "language")
LABEL = 11  # characters


def _help(name: str) -> str:
    return str(RunConfig.model_fields[name].description)


@main.command()
@click.argument("path")
@click.option("--columns", help=_help("columns"))
@click.option("--keep-columns", help=_help("keep_columns"))
@click.option("--language-from", help=_help("language_from"))
@click.option("--source-prefix", help=_help("source_prefix"))
@click.option("--language", help=_help("language"))
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def inspect(path: str, as_json: bool, **parameters: str | None) -> None:
    """Show what a run would take of PATH.

    PATH is a table, a manifest, a folder, a glob, a file, or an output of audiopipe. Nothing is written. The last line
    is the command to run next.
    """
    from audiopipe.catalog.inspection import inspect_catalog
    from audiopipe.dataset.inspection import inspect_dataset, inspect_samples

    result = inspect_dataset(path)
    if result is None:
        result = inspect_catalog(path, parameters)
        if result.rows and result.rows[0]["file"].endswith(".tar"):
            result = inspect_samples(path, result.rows[0]["file"]) or result
    if result.parameters:
        result.commands.append(_command(result))
    if as_json:
        click.echo(json.dumps(asdict(result), ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(result)))
    sys.exit(0 if result.commands else CatalogError.exit_code)


def _command(result: Inspection) -> str:
    """Return the command that processes what was inspected."""
    name = re.sub(r"\.\w+(\.gz)?$", "", result.address.rstrip("/").rpartition("/")[2])
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
    parameters = result.parameters | {"output": f"{stem}-speech"}
    return "audiopipe run " + " ".join(
        f"--{key.replace('_', '-')} {shlex.quote(value)}" for key, value in parameters.items()
    )


def _cells(row: Mapping[str, str]) -> Iterator[str]:
    for name, value in row.items():
        yield {"text": f'"{value}"', "speaker": f"({value})"}.get(name, value)


def _lines(result: Inspection) -> Iterator[str]:
    yield f"{result.address}: {result.kind}"
    for label, text in result.details.items():
        yield f"  {label:{LABEL}} {text}"
    for number, row in enumerate(result.rows):
        yield f"  {'' if number else 'first files':{LABEL}} {'  '.join(_cells(row))}"
    for problem in result.problems:
        yield f"  {'problem':{LABEL}} {problem}"
    for number, command in enumerate(result.commands):
        yield f"  {'' if number else 'next':{LABEL}} {command}"
