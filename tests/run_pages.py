"""Run the commands and scripts of pages in one process and on one cluster, which saves the start of each.

Standard input has a JSON list of [text, words, exit code]: a command with its words, or a script without words.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click
import yaml
from distributed import LocalCluster

from audiopipe.cli import main


def run_item(text: str, words: list[str]) -> int:
    """Run a command or a script, and return its exit code."""
    try:
        if not words:
            exec(compile(text, "page", "exec"), {"__name__": "__main__"})
        elif words[0] == "audiopipe":
            main.main(words[1:], standalone_mode=False)
        else:
            program = Path(sys.executable).with_name(words[0])
            return subprocess.run([str(program), *words[1:]], check=False).returncode
    except SystemExit as exit_request:
        return int(exit_request.code or 0)
    return 0


def run_items(items: list[tuple[str, list[str], int]]) -> None:
    for text, words, expected in items:
        start = time.monotonic()
        click.echo(f"== {text}")
        code = run_item(text, words)
        click.echo(f"== exit code {code} after {time.monotonic() - start:.1f} s")
        if code != expected:
            sys.exit(f"exit code {code} instead of {expected}: {text}")


if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as profiles:
        # The profile that a run uses if no one names another.
        yaml.safe_dump({"auto": {"engine": "existing", "address": cluster.scheduler_address}}, profiles)
        profiles.flush()
        os.environ["AUDIOPIPE_PROFILES"] = profiles.name
        run_items(json.load(sys.stdin))
    with suppress(TimeoutError):  # on a busy machine the workers, which have nothing to do, may be late to end
        cluster.close(timeout=60)
