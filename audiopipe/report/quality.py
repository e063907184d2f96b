"""The quality report of a dataset in numbers: its size, its languages, the drop reasons and the failed videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from audiopipe import errors
from audiopipe.dataset.totals import Totals
from audiopipe.report import page
from audiopipe.report.dataset_tables import PARAMETERS, DatasetTables, read_tables
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.groups import largest
from audiopipe.report.metric_labels import format_metric, metric_title
from audiopipe.report.numbers import RunNumbers, medians
from audiopipe.report.page import Html, esc
from audiopipe.report.settings import settings
from audiopipe.report.text import format_bytes, format_duration, format_names, format_percent, humanize, pluralize
from audiopipe.scorers.scorer import Column

__all__ = ["PARAMETERS", "drops", "failures", "headline", "languages", "read_tables", "remedy"]

MEDIANS = ("dnsmos_ovrl", "loudness_lufs", "true_peak_dbtp", "snr_db", "silence_ratio", "bandwidth_hz")
MAX_EXAMPLES = 3
MAX_COLUMNS = 12  # languages with a column
LARGE_LOSS = 0.25  # of a language's segments; more than that is pointed out
LARGE_FAILURE = 0.1  # of the videos


def headline(tables: DatasetTables) -> Html:
    """Show the main numbers, and what is remarkable about them."""
    total, numbers = tables.total, tables.numbers
    cards = [
        (f"{numbers.hours_kept} h", f"kept of {numbers.hours} h"),
        (numbers.kept_share, f"kept of {pluralize(numbers.segments, 'segment')}"),
        (f"{numbers.segments_kept:,}", "segments kept"),
        (numbers.done, "videos done"),
        (f"{numbers.videos_failed:,}", "videos failed permanently"),
        (f"{len(tables.by_language)}", "languages"),
        (format_bytes(total.bytes_out), "in the dataset"),
        (format_duration(float(tables.kept["duration_s"].median())), "median segment"),
    ]
    summary = page.embed_metadata({"run_id": tables.dataset.run.run_id, **numbers.index_values()})
    return page.with_styles(page.join(page.cards(cards), _verdict(tables), _provenance(tables), summary))


def _verdict(tables: DatasetTables) -> Html:
    total, languages = tables.total, tables.by_language.items()
    if not total.segments_kept:
        return page.verdict("bad", ["No segment was kept.", "See the drop reasons and the failed videos below."])
    level: page.Level = "good"
    lines = [f"{tables.numbers.kept_share} of the segments passed every threshold."]
    if dropped := total.segments - total.segments_kept:
        reason, count = total.drops.most_common(1)[0]
        lines.append(
            f"{pluralize(dropped, 'segment')} dropped; the most frequent reason is "
            f"<b>{esc(humanize(reason))}</b> ({count:,})."
        )
    if lossy := [name for name, totals in languages if totals.segments_kept < (1 - LARGE_LOSS) * totals.segments]:
        level = "warn"
        lines.append(
            f"More than {100 * LARGE_LOSS:.0f} % of the segments were dropped in <b>{esc(format_names(lossy))}</b>. "
            "Check the reasons and listen to the examples."
        )
    if empty := [name for name, totals in languages if not totals.segments_kept]:
        level = "bad"
        lines.append(f"No segment was kept in <b>{esc(format_names(empty))}</b>.")
    if total.videos_failed > LARGE_FAILURE * total.videos:
        level = "warn" if level == "good" else level
        lines.append(f"{tables.numbers.failed_share} of the videos failed permanently. See “Failed videos”.")
    return page.verdict(level, lines)


def _provenance(tables: DatasetTables) -> Html:
    run, versions = tables.dataset.run, tables.dataset.run.versions
    text = f"Output <code>{esc(tables.dataset.url)}</code>, run <code>{esc(run.run_id)}</code>, "
    text += f"{pluralize(len(tables.dataset.results), 'shard')}. Sums cover all shards. "
    text += f"Made by audiopipe {esc(versions['audiopipe'])} with torch {esc(versions['torch'])}."
    if tables.is_sample:
        text += (
            " <b>Distributions, medians, examples, and the tables of videos, speakers, texts and conditions cover a "
            f"sample of {len(tables.segments):,} of {tables.total.segments:,} segments</b>: whole shards drawn at "
            "random (<code>max_segments</code>)."
        )
    return page.join(page.note(text), settings(tables.config, run.config_digest))


def languages(tables: DatasetTables) -> Html:
    """Show a row for each language: sums over all its shards, and medians of its kept segments."""
    metrics = tables.present(MEDIANS)
    by_language = {str(name): medians(rows, metrics) for name, rows in tables.kept.groupby("language")}
    columns = [tables.metrics[metric] for metric in metrics]
    rows = [_language(name, total, by_language.get(name), columns) for name, total in tables.by_language.items()]
    overall = medians(tables.kept, metrics)
    last = ["all", "", *_sums(tables.total), *(format_metric(column, overall[column.name]) for column in columns)]
    head = ["language", "", "segments kept", "hours kept", "videos done", "failed", *map(metric_title, columns)]
    legend = page.legend({"kept": KEPT, "dropped": DROPPED})
    note = page.note("The columns on the right are medians of the kept segments.")
    return page.join(page.table(head, rows, "ll", last), legend, note)


def _language(name: str, total: Totals, medians: pd.Series | None, columns: Sequence[Column]) -> list[str | Html]:
    values = ["–" if medians is None else format_metric(column, medians[column.name]) for column in columns]
    share = total.segments_kept / total.segments if total.segments else 0.0
    bar = page.bar([(share, KEPT), (1 - share if total.segments else 0.0, DROPPED)])
    return [name, bar, *_sums(total), *values]


def _sums(total: Totals) -> list[str]:
    numbers = RunNumbers.of_totals(total)
    return [
        f"{numbers.kept} ({numbers.kept_share})",
        f"{numbers.hours_kept} / {numbers.hours}",
        numbers.done,
        f"{numbers.videos_failed:,}",
    ]


def drops(tables: DatasetTables) -> Html:
    """Show the drop reasons with their thresholds and counts, in all and by language."""
    total, config = tables.total, tables.config
    if not total.drops:
        return page.note("No segment was dropped.")
    meanings = {threshold.reason: str(threshold) for threshold in tables.thresholds}
    meanings["too_short"] = f"shorter than {config['min_segment_s']:g} s: min_segment_s"
    meanings["too_long"] = f"longer than {config['max_segment_s']:g} s: max_segment_s"
    condition = str(config.get("keep_if") or "")
    meanings |= {reason: "a part of keep_if is false" for reason in total.drops if reason in condition}
    top = max(total.drops.values())
    groups = largest({name: totals.drops.total() for name, totals in tables.by_language.items()}, MAX_COLUMNS)
    by_group = {name: Totals() for name in groups.names}
    for name, totals in tables.by_language.items():
        by_group[groups.label(name)].drops.update(totals.drops)
    rows = [
        [
            humanize(reason),
            meanings.get(reason, _meaning(reason, config)),
            page.bar([(count / top, DROPPED)]),
            f"{count:,}",
            format_percent(count, total.segments),
            *(f"{totals.drops[reason]:,}" if totals.drops[reason] else "·" for totals in by_group.values()),
        ]
        for reason, count in total.drops.most_common()
    ]
    head = ["reason", "meaning", "", "segments", "of all", *groups.names]
    note = page.note("A segment outside several limits counts under the first of them.")
    return page.join(page.table(head, rows, "lwl"), note)


def _meaning(reason: str, config: Mapping[str, object]) -> str:
    """Return the parameter of a reason that is a part of the run's condition."""
    return "is false: keep_if" if not reason.isidentifier() and config.get("keep_if") else "–"


def remedy(error_type: str) -> str:
    """Return what to do about an error of this name."""
    return str(getattr(errors, error_type, errors.AudiopipeError).remedy)


def failures(tables: DatasetTables) -> Html:
    """Show the failed videos by error type, with examples."""
    counted = Counter(letter.error_type for letter in tables.dead_letters).most_common()
    if not counted:
        return page.note("No video failed.")
    rows = []
    for error_type, count in counted:
        letters = [letter for letter in tables.dead_letters if letter.error_type == error_type]
        by_language = Counter(letter.language for letter in letters).most_common()
        examples = "<br>".join(
            f"<code>{esc(letter.video_id)}</code> {esc(letter.message[:240])}" for letter in letters[:MAX_EXAMPLES]
        )
        advice = f"<br><small>What to do: {page.inline_code(remedy(error_type)).markup}.</small>"
        bar = page.bar([(count / counted[0][1], BAD)])
        where = format_names([f"{number_of_videos} {name}" for name, number_of_videos in by_language])
        rows.append([error_type, bar, f"{count:,}", letters[0].stage, where, Html(examples + advice)])
    return page.table(["reason", "", "videos", "stage", "languages", "examples"], rows, "ll llw")
