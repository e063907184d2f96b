"""Define the `audiopipe` command group, its exit codes, and the handling of errors."""

from __future__ import annotations

import difflib
import locale
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console

from audiopipe import __version__
from audiopipe.errors import AudiopipeError

__all__ = ["CONSOLE", "EXITS", "EXIT_CODES", "ExitCode", "main", "name_next"]


@dataclass(frozen=True)
class ExitCode:
    """The meaning of an exit code, and what to do about it."""

    meaning: str
    remedy: str


EXITS = {
    0: ExitCode("done", "nothing"),
    1: ExitCode("failed; for verify, the output has errors", "read the last line: it names the error"),
    2: ExitCode(
        "misused, or a person must act: a parameter is invalid, or does not match the output, an extra is missing, "
        "keys are refused, or a disk is full",
        "read the last line and correct what it names",
    ),
    3: ExitCode(
        "done, with dead letters: videos that cannot be processed as they are",
        "correct the videos, then audiopipe retry",
    ),
    4: ExitCode(
        "not finished: interrupted, or a store, a network, the cluster or its workers stayed down",
        "run the same command again",
    ),
    5: ExitCode(
        "done, but more than max_failed_share of the videos failed: their place or the run is probably at fault",
        "read the most frequent reason in the summary and correct it, then audiopipe retry",
    ),
}
EXIT_CODES = "\b\nExit codes:\n" + "".join(f"  {code}  {item.meaning}\n" for code, item in EXITS.items())

CONSOLE = Console(stderr=True)


# What people type for a command.
SYNONYMS = {
    "status": "monitor",
    "progress": "monitor",
    "watch": "monitor",
    "plan": "estimate",
    "cost": "estimate",
    "check": "verify",
    "validate": "verify",
    "filter": "select",
    "subset": "select",
    "score": "annotate",
    "label": "annotate",
    "continue": "resume",
    "start": "run",
    "process": "run",
    "clean": "gc",
    "convert": "html",
    "jupyter": "lab",
    "notebook": "notebooks",
    "metrics": "explain",
    "languages": "explain",
    "benchmark": "bench",
}
COMPLETION = """
\b
Shell completion, as a line of ~/.bashrc (zsh: ~/.zshrc and zsh_source; fish: fish_source):
  eval "$(_AUDIOPIPE_COMPLETE=bash_source audiopipe)"
"""


def name_next(*commands: str) -> None:
    """Name the next commands on stderr, so that the output of the finished one stays free for other programs."""
    click.echo(f"next: {'; or '.join(commands)}", err=True)


# Dask logs a stack trace for every failed task and lost connection; the run reports those itself. Set in the
# environment, so that worker processes started from here inherit it.
QUIET_DASK = "{'distributed': 'critical', 'distributed.client': 'critical'}"


class _Commands(click.Group):
    """A command group that turns this package's errors into one line and an exit code."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run the command of this process, or the given one."""
        if args is None and locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"):
            # Dask and others read and name files in the locale's encoding. In UTF-8 mode, workers inherit UTF-8.
            os.environ["PYTHONUTF8"] = "1"
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
        return super().main(args, *rest, **options)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest one by its name or by another word for it."""
        try:
            return super().resolve_command(context, args)
        except click.exceptions.NoSuchCommand as error:
            words = {name: name for name in self.commands} | SYNONYMS
            matches = dict.fromkeys(words[word] for word in difflib.get_close_matches(args[0].lower(), words, n=2))
            hint = f" Did you mean {' or '.join(repr(name) for name in matches)}?" if matches else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", error.ctx) from None

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except AudiopipeError as error:
            CONSOLE.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
            sys.exit(error.exit_code)


@click.group(cls=_Commands, epilog=EXIT_CODES + COMPLETION, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("-v", "--verbose", is_flag=True, help="show Dask's log as well")
def main(verbose: bool) -> None:
    """Turn half a million videos into a scored, resampled, sharded speech dataset in a day."""
    if not verbose:
        os.environ.setdefault("DASK_LOGGING", QUIET_DASK)
