"""Define the command that makes a dataset from another one: select."""

from __future__ import annotations

from typing import Any

import click

from audiopipe.cli.checks import check_output
from audiopipe.cli.main import EXIT_CODES, main
from audiopipe.cli.options import execution_options
from audiopipe.cli.runs import drive, without_none


@main.command(epilog=EXIT_CODES)
@click.argument("output")
@click.argument("dest")
@click.option(
    "--where",
    default="kept",
    show_default=True,
    help="SQL condition over the columns of segments and annotations, such as 'snr_db > 20 AND text IS NOT NULL'",
)
@click.option("--languages", help="comma-separated list of languages; default: all")
@click.option("--unique", is_flag=True, help="leave out the videos that have the audio of another video")
@click.option("--split", help="splits with their shares, such as train=0.98,validation=0.01,test=0.01")
@click.option(
    "--split-by",
    type=click.Choice(["video", "speaker"]),
    default="video",
    show_default=True,
    help="video: no video is in two splits; speaker: no speaker either, if labels are the same in all videos",
)
@click.option("--shuffle", type=int, metavar="SEED", help="random order over each language and split, by this number")
@click.option("--hours", type=float, help="take only so many hours, the best by --rank-by")
@click.option("--rank-by", metavar="'COLUMN [asc|desc]'", help="column that decides which segments are the best")
@click.option("--shard-mb", default=1024, show_default=True, help="maximum megabytes of a tar", type=click.IntRange(1))
@click.option("--virtual", is_flag=True, help="copy no audio: name byte ranges of the tars of OUTPUT")
@execution_options
def select(output: str, dest: str, as_json: bool, quiet: bool, **parameters: Any) -> None:
    """Make a dataset from segments of another one.

    It copies the encoded audio of the segments of OUTPUT for which a condition holds to DEST. The same command resumes
    a selection that was interrupted.
    """
    check_output(output, parameters["cluster"])
    from audiopipe.driver.select import select as select_segments

    drive(lambda tick: select_segments(output, dest, on_tick=tick, **without_none(parameters)), as_json, quiet)
