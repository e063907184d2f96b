"""The command itself: its exit codes, and what becomes of an error."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console

from audiopipe import __version__
from audiopipe.errors import AudiopipeError, CatalogError, ConfigError, PlanError, StoreRefused, TransientError

__all__ = ["CONSOLE", "EXIT_CODES", "main"]

EXIT_CODES = """\b
Exit codes:
  0  done
  1  failed: an error that is named on the last line; for verify, something is wrong with the output
  2  misused: a parameter is unknown or impossible, or does not fit the output
  3  done, with dead letters: videos that can never be processed as they are
  4  not finished: run the same command again
"""

CONSOLE = Console(stderr=True)


class _Commands(click.Group):
    """Turns this package's errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (ConfigError, CatalogError, PlanError, StoreRefused) as error:
            _fail(error, 2)
        except TransientError as error:
            _fail(error, 4)
        except AudiopipeError as error:
            _fail(error, 1)


def _fail(error: AudiopipeError, code: int) -> None:
    CONSOLE.print(f"[bold red]{type(error).__name__}[/]: ", end="")
    CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Turn half a million videos into a scored, resampled, sharded speech dataset in a day."""
