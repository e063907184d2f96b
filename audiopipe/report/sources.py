"""The videos, channels and labeled speakers that a dataset consists of."""

from __future__ import annotations

import numpy as np
import pandas as pd

from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import KEPT
from audiopipe.report.groups import Groups
from audiopipe.report.histogram import bin_edges
from audiopipe.report.numbers import format_hours, format_share
from audiopipe.report.page import Html
from audiopipe.report.ridges import Sample, draw_histograms
from audiopipe.report.text import format_number, format_percent, pluralize

__all__ = ["labeled_speakers", "videos_and_channels"]

MAX_ROWS = 20
BINS = 48
TOP_SHARE = 0.1


def videos_and_channels(tables: DatasetTables) -> Html:
    """Show the videos and channels with most kept hours."""
    heading = Html("<h2>Videos and channels</h2>")
    if not len(tables.kept):
        return page.join(heading, page.note("No segment was kept."))
    rows = _with_channels(tables)
    pieces = [heading, _top(rows, ["language", "video_id"], "video")]
    if rows["channel"].notna().any():
        pieces.append(_top(rows, ["channel"], "channel"))
    return page.join(*pieces)


def _with_channels(tables: DatasetTables) -> pd.DataFrame:
    """Return all segments with the title and the channel of their video, which are missing where nothing names them.

    Columns of the catalog that the segments carry come first, then the metadata next to the audio.
    """
    names = ["title", "channel"]
    rows = tables.segments[
        ["language", "video_id", "duration_s", "kept", *(name for name in names if name in tables.segments)]
    ]
    missing = [name for name in names if name not in rows]
    if not missing:
        return rows
    sql = f"SELECT language, video_id, {', '.join(missing)} FROM videos WHERE coalesce(title, channel) IS NOT NULL"
    videos = tables.dataset.query(sql).to_pandas().drop_duplicates(["language", "video_id"])
    return rows.merge(videos, how="left", on=["language", "video_id"])


def _top(rows: pd.DataFrame, keys: list[str], noun: str) -> Html:
    """Show the groups with most kept hours, and how much of the dataset the largest tenth is."""
    is_video = noun == "video"
    groups = rows.assign(kept_s=rows["duration_s"].where(rows["kept"], 0.0)).groupby(keys, as_index=False)
    sums = groups.agg(
        kept_s=("kept_s", "sum"),
        kept=("kept", "sum"),
        segments=("kept", "size"),
        videos=("video_id", "nunique"),
        name=("title", "first"),
    )
    sums = sums[sums["kept"] > 0].sort_values("kept_s", ascending=False, kind="stable")
    # Segments whose channel nothing names are in no group, but in the total.
    total_s, largest_s = float(rows["duration_s"][rows["kept"]].sum()), float(sums["kept_s"].iloc[0])
    body: list[list[str | Html]] = [
        [
            *(str(row[key]) for key in keys),
            (str(row["name"]) if pd.notna(row["name"]) else "–") if is_video else f"{row['videos']:,}",
            page.bar([(row["kept_s"] / largest_s, KEPT)]),
            format_hours(row["kept_s"]),
            format_percent(row["kept_s"], total_s),
            format_share(row["kept"], row["segments"]),
        ]
        for row in sums.head(MAX_ROWS).to_dict("records")
    ]
    tenth = max(1, round(TOP_SHARE * len(sums)))
    share = format_percent(float(sums["kept_s"].head(tenth).sum()), total_s)
    note = f"{pluralize(len(sums), noun)} with kept segments; the {pluralize(tenth, noun)} with most have {share} "
    note += "of the hours."
    head = [*(["language", "video", "title"] if is_video else ["channel", "videos"]), "", "hours kept", "of all"]
    table = page.table([*head, "segments kept"], body, "llwl" if is_video else "w l")
    return page.join(Html(f"<h4>{noun.capitalize()}s with most hours</h4>"), page.note(note), table)


def labeled_speakers(tables: DatasetTables) -> Html:
    """Show the hours of labeled speakers and their distribution. Returns an empty piece without labels."""
    kept = tables.kept
    labeled = kept[kept["speaker"].notna() & (kept["speaker"] != "")]
    if not len(labeled):
        return Html("")
    # The scorer's labels are numbers within a video; a catalog's or sidecar's label may be of a person.
    local = bool(tables.config.get("speaker_labels"))
    keys = ["language", *(["video_id"] if local else []), "speaker"]
    groups = labeled.groupby(keys).agg(
        hours=("duration_s", lambda seconds: seconds.sum() / 3600),
        segments=("key", "size"),
        videos=("video_id", "nunique"),
    )
    groups = groups.sort_values("hours", ascending=False, kind="stable").reset_index()
    share = format_percent(float(labeled["duration_s"].sum()), float(kept["duration_s"].sum()))
    middle = format_number(60 * float(groups["hours"].median()), 1)
    text = f"{pluralize(len(groups), 'speaker')} with a label, in {share} of the kept time; "
    text += f"the median speaker has {middle} min. "
    text += (
        "A label names a speaker within a video: the same label in another video is another speaker."
        if local
        else "The same label in several videos of a language counts as one speaker."
    )
    title = Html("<h4>Labeled speakers</h4>")
    return page.join(
        title, page.note(text), page.grid([_distribution(groups), _largest_speakers(groups, local)], two=True)
    )


def _distribution(groups: pd.DataFrame) -> Html:
    minutes = 60 * groups["hours"].to_numpy(dtype=float)
    edges = bin_edges(minutes, BINS)
    edges = np.linspace(max(0.0, float(edges[0])), float(edges[-1]), BINS + 1)
    chart = draw_histograms(
        Sample(minutes, groups["language"], counted="speakers"),
        Groups(["all"], []),
        edges,
        "minutes of a speaker",
        "minutes of a speaker",
        None,
        560,
    )
    return page.figure(chart, "Speakers", "by their kept minutes")


def _largest_speakers(groups: pd.DataFrame, local: bool) -> Html:
    top = float(groups["hours"].iloc[0])
    body = [
        [
            row["language"],
            row["speaker"],
            row["video_id"] if local else f"{row['videos']:,}",
            page.bar([(row["hours"] / top, KEPT)]),
            format_number(row["hours"], 3),
            f"{row['segments']:,}",
        ]
        for _, row in groups.head(MAX_ROWS).iterrows()
    ]
    head = ["language", "speaker", "video" if local else "videos", "", "hours", "segments"]
    return page.table(head, body, "lwll" if local else "lw l")
