"""The command itself: its exit codes, and what becomes of an error."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from rich.console import Console

from audiopipe import __version__
from audiopipe.errors import AudiopipeError

__all__ = ["CONSOLE", "EXITS", "EXIT_CODES", "main"]

# What each means, and what to do then.
EXITS: dict[int, tuple[str, str]] = {
    0: ("done", "nothing"),
    1: ("failed; for verify, something is wrong with the output", "read the last line, it names the error"),
    2: ("misused: a parameter is unknown or impossible, or does not fit the output", "read the last line, correct it"),
    3: ("done, with dead letters: videos that can never be processed as they are", "audiopipe retry, when mended"),
    4: ("not finished: interrupted, or a store or a network stayed down", "run the same command again"),
}
EXIT_CODES = "\b\nExit codes:\n" + "".join(f"  {code}  {text}\n" for code, (text, _) in EXITS.items())

CONSOLE = Console(stderr=True)

# Every failed task and lost connection fills Dask's log with stack traces; what they mean is said by the run itself.
# For the workers that this process starts too, which inherit its environment.
QUIET_DASK = "{'distributed': 'critical', 'distributed.client': 'critical'}"


class _Commands(click.Group):
    """Turns this package's errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except AudiopipeError as error:
            CONSOLE.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
            sys.exit(error.exit_code)


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="show Dask's own log as well")
def main(verbose: bool) -> None:
    """Turn half a million videos into a scored, resampled, sharded speech dataset in a day."""
    if not verbose:
        os.environ.setdefault("DASK_LOGGING", QUIET_DASK)
