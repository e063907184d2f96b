"""A dataset in numbers and words: what is in it, what was left out, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from audiopipe import errors
from audiopipe.dataset.totals import Totals
from audiopipe.kernels import METRICS
from audiopipe.report import page
from audiopipe.report.dataset import PARAMETERS, DatasetTables, Rule, read_dataset
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.settings import settings
from audiopipe.report.text import format_bytes, format_duration, humanize, number, percent, plural

__all__ = [
    "PARAMETERS",
    "counts",
    "digits",
    "drops",
    "failures",
    "headline",
    "languages",
    "read_dataset",
    "remedy",
    "rule_text",
    "title",
]

SHOWN = ("loudness_lufs", "true_peak_dbtp", "snr_db", "silence_ratio", "bandwidth_hz")
EXAMPLES = 3
MUCH = 0.25  # a language that loses more than this share of its segments is named


def headline(data: DatasetTables) -> Html:
    """The numbers, and in words what is remarkable about them."""
    total = data.total
    cards = [
        (f"{total.kept_s / 3600:,.2f} h", f"kept of {total.audio_s / 3600:,.2f} h"),
        (percent(total.segments_kept, total.segments), f"kept of {plural(total.segments, 'segment')}"),
        (f"{total.segments_kept:,}", "segments kept"),
        (f"{total.videos - total.videos_failed:,}", f"of {total.videos:,} videos"),
        (f"{total.videos_failed:,}", "videos failed"),
        (f"{len(data.by_language)}", "languages"),
        (format_bytes(total.bytes_out), "in the dataset"),
        (format_duration(_median(data.kept["duration_s"])), "median segment"),
    ]
    about = page.facts({"run_id": data.run.run_id, **counts(total)})
    return page.styled(page.join(page.cards(cards), _verdict(data), _source(data), about))


def counts(total: Totals) -> dict[str, Any]:
    """For the index page."""
    videos = {"videos": total.videos, "failed": total.videos_failed}
    return {**videos, "segments": total.segments, "kept": total.segments_kept, "hours_kept": total.kept_s / 3600}


def _verdict(data: DatasetTables) -> Html:
    total = data.total
    if not total.segments_kept:
        return page.verdict("bad", ["Nothing was kept.", "See the drop reasons and the failed videos below."])
    dropped = total.segments - total.segments_kept
    level: page.Level = "good"
    first = f"{percent(total.segments_kept, total.segments)} of the segments passed every threshold."
    rest = []
    if dropped:
        most, count = total.drops.most_common(1)[0]
        rest.append(f"{plural(dropped, 'segment')} dropped, most of them <b>{esc(humanize(most))}</b> ({count:,}).")
    weak = [name for name, some in data.by_language.items() if some.segments_kept < (1 - MUCH) * some.segments]
    if weak:
        level = "warn"
        rest.append(
            f"More than {100 * MUCH:.0f} % of the segments are lost in <b>{esc(', '.join(weak))}</b>: "
            "see the reasons, and listen to the examples."
        )
    empty = [name for name, some in data.by_language.items() if not some.segments_kept]
    if empty:
        level = "bad"
        rest.append(f"Nothing was kept of <b>{esc(', '.join(empty))}</b>.")
    if total.videos_failed > 0.1 * total.videos:
        level = "warn" if level == "good" else level
        rest.append(f"{percent(total.videos_failed, total.videos)} of the videos failed for good: see “Failed videos”.")
    return page.verdict(level, [first, *rest])


def _source(data: DatasetTables) -> Html:
    told = f"Output <code>{esc(data.store.url)}</code>, run <code>{esc(data.run.run_id)}</code>"
    told += f", {plural(len(data.commits), 'shard')}. Sums are of all shards."
    versions = data.run.versions
    told += f" Made by audiopipe {esc(versions['audiopipe'])} with torch {esc(versions['torch'])}."
    if data.sampled:
        told += (
            f" <b>Distributions, medians and examples are of a sample of {len(data.segments):,} "
            f"of {data.total.segments:,} segments</b>, in whole shards drawn at random (<code>max_segments</code>)."
        )
    return page.join(page.note(told), settings(data.run.config, data.run.config_digest))


def languages(data: DatasetTables) -> Html:
    """A row a language: sums over all its shards, medians of its kept segments."""
    medians = data.kept.groupby("language")[list(SHOWN)].median()
    rows = [_language(name, total, medians) for name, total in data.by_language.items()]
    overall = data.kept[list(SHOWN)].median()
    last = ["all", "", *_counts(data.total), *(_value(name, overall[name]) for name in SHOWN)]
    head = ["language", "", "segments kept", "hours kept", "videos", "failed", *(title(name) for name in SHOWN)]
    key = page.legend({"kept": KEPT, "dropped": DROPPED})
    note = page.note("The five columns on the right are medians of the kept segments.")
    return page.join(page.table(head, rows, "ll", last), key, note)


def _language(name: str, total: Totals, medians: pd.DataFrame) -> list[str | Html]:
    values = [_value(metric, medians[metric].get(name, float("nan"))) for metric in SHOWN]
    share = total.segments_kept / total.segments if total.segments else 0.0
    picture = page.bar([(share, KEPT), (1 - share if total.segments else 0.0, DROPPED)])
    return [name, picture, *_counts(total), *values]


def _counts(total: Totals) -> list[str]:
    return [
        f"{total.segments_kept:,} / {total.segments:,} ({percent(total.segments_kept, total.segments)})",
        f"{number(total.kept_s / 3600, 2)} / {number(total.audio_s / 3600, 2)}",
        f"{total.videos:,}",
        f"{total.videos_failed:,}",
    ]


def title(metric: str) -> str:
    """`snr_db` as `SNR (dB)`, `clipping_ratio` as `clipping ratio`."""
    unit = METRICS[metric].unit
    name = humanize(metric.rsplit("_", 1)[0] if unit != "1" else metric)
    return name.replace("snr", "SNR").replace("rms", "RMS").replace("dc ", "DC ") + (
        f" ({unit})" if unit != "1" else ""
    )


def digits(metric: str) -> int:
    """Decimals that are worth showing."""
    unit = METRICS[metric].unit
    return 0 if unit == "Hz" else 3 if unit == "1" else 1


def _value(metric: str, value: float) -> str:
    return number(value, digits(metric))


def _median(values: pd.Series[float]) -> float:
    return float(values.median()) if len(values) else float("nan")


def rule_text(rule: Rule) -> str:
    """`SNR (dB) below 5: min_snr_db`."""
    return f"{title(rule.metric)} {'below' if rule.below else 'above'} {rule.limit:g}: {rule.field}".replace("-", "−")


def drops(data: DatasetTables) -> Html:
    """Why segments were dropped, and where."""
    total = data.total
    if not total.drops:
        return page.note("No segment was dropped.")
    limits = {rule.reason: rule_text(rule) for rule in data.rules}
    config = data.run.config
    limits["too_short"] = f"shorter than {config['min_segment_s']:g} s: min_segment_s"
    limits["too_long"] = f"longer than {config['max_segment_s']:g} s: max_segment_s"
    most = max(total.drops.values())
    rows = [
        [
            humanize(reason),
            limits.get(reason, "–"),
            page.bar([(count / most, DROPPED)]),
            f"{count:,}",
            percent(count, total.segments),
            *(f"{some.drops[reason]:,}" if some.drops[reason] else "·" for some in data.by_language.values()),
        ]
        for reason, count in total.drops.most_common()
    ]
    head = ["reason", "meaning", "", "segments", "of all", *data.by_language]
    return page.join(
        page.table(head, rows, "lwl"), page.note("A segment that breaks several limits counts under the first.")
    )


def remedy(error_type: str) -> str:
    """What to do about an error of this name."""
    return str(getattr(errors, error_type, errors.AudiopipeError).remedy)


def failures(data: DatasetTables) -> Html:
    """Videos that are not in the dataset, by reason, with examples."""
    letters = data.dead_letters
    if not letters:
        return page.note("No video failed.")
    counts = Counter(letter.error_type for letter in letters)
    rows = []
    for kind, count in counts.most_common():
        some = [letter for letter in letters if letter.error_type == kind]
        where = ", ".join(f"{n} {name}" for name, n in Counter(letter.language for letter in some).most_common())
        told = "<br>".join(f"<code>{esc(one.video_id)}</code> {esc(one.message[:240])}" for one in some[:EXAMPLES])
        told += f"<br><small>What to do: {page.prose(remedy(kind)).markup}.</small>"
        bar = page.bar([(count / max(counts.values()), BAD)])
        rows.append([kind, bar, f"{count:,}", some[0].stage, where, Html(told)])
    return page.table(["reason", "", "videos", "stage", "languages", "examples"], rows, "ll llw")
