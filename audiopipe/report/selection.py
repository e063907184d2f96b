"""A selection: what was taken from its parent and what was left out, by language and reason."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.select_lists import read_summary
from audiopipe.dataset.selection import Selection, read_selection
from audiopipe.report import page
from audiopipe.report.figure import DROPPED, KEPT, NEUTRAL
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number, format_percent, humanize, pluralize

__all__ = ["before_and_after", "describe", "report_link"]

KEPT_BY_RUN = "kept"  # the label of the parent's kept segments
MAX_REASONS = 20
# {language: {reason or split: {segments, hours}}}
Counts = Mapping[str, Mapping[str, Mapping[str, float]]]


def before_and_after(dataset: Dataset) -> Html:
    """Compare a selection with its parent in numbers. Returns an empty piece for the output of a run."""
    selection = read_selection(dataset.run)
    if selection is None:
        return Html("")
    summary = read_summary(dataset.store)
    before, after, left_out = summary["before"], summary["after"], summary["left_out"]
    return page.join(describe(selection), _languages(before, after), _reasons(before, left_out))


def describe(selection: Selection) -> Html:
    """Show the parent, the condition and the options of a selection."""
    options = selection.options
    chosen = [
        ("languages", options.languages and ", ".join(options.languages)),
        ("without re-uploads", options.unique),
        ("splits", ", ".join(f"{name}={share:g}" for name, share in options.splits)),
        ("order", options.shuffle is not None and f"random, seed {options.shuffle}"),
        ("at most", options.hours and f"{options.hours:g} h, by {options.rank_by}"),
        ("virtual", options.virtual and "no audio is copied"),
    ]
    texts = [name if value is True else f"{name}: {value}" for name, value in chosen if value]
    text = f"Selected from <code>{esc(selection.url)}</code>, run <code>{esc(selection.run_id)}</code>, "
    text += f"{pluralize(selection.shards, 'shard')}, where <code>{esc(options.where)}</code>"
    return page.note(text + (f"; {esc('; '.join(texts))}." if texts else "."))


def _languages(before: Counts, after: Counts) -> Html:
    """Show a row for each language: kept segments and hours of the parent, and those that were selected."""
    rows = [_language(name, [before[name]], [after.get(name, {})]) for name in sorted(before)]
    total = _language("all", before.values(), after.values())
    head = ["language", "", "kept before", "selected", "share", "hours before", "hours selected"]
    legend = page.legend({"selected": KEPT, "left out": DROPPED})
    return page.join(page.table(head, rows, "ll", total), legend)


def _language(
    name: str, before: Iterable[Mapping[str, Mapping[str, float]]], after: Iterable[Mapping[str, Mapping[str, float]]]
) -> list[str | Html]:
    kept, hours = _sum(labels.get(KEPT_BY_RUN, {}) for labels in before)
    selected, selected_hours = _sum(count for labels in after for count in labels.values())
    share = min(1.0, selected / kept) if kept else 0.0
    return [
        name,
        page.bar([(share, KEPT), (1 - share, DROPPED if kept else NEUTRAL)]),
        f"{kept:,}",
        f"{selected:,}",
        format_percent(selected, kept),
        format_number(hours, 2),
        format_number(selected_hours, 2),
    ]


def _sum(counts: Iterable[Mapping[str, float]]) -> tuple[int, float]:
    segments, hours = 0, 0.0
    for count in counts:
        segments += int(count.get("segments", 0))
        hours += count.get("hours", 0.0)
    return segments, hours


def _reasons(before: Counts, left_out: Counts) -> Html:
    """Show what was left out by reason: the first part of the condition that did not hold, or an option."""
    reasons: dict[str, tuple[int, float]] = {}
    for labels in left_out.values():
        for reason, count in labels.items():
            segments, hours = reasons.get(reason, (0, 0.0))
            reasons[reason] = (segments + int(count["segments"]), hours + count["hours"])
    if not reasons:
        return page.note("Nothing was left out.")
    ordered = sorted(reasons.items(), key=lambda item: (-item[1][0], item[0]))[:MAX_REASONS]
    largest = ordered[0][1][0]
    rows = [
        [
            Html(f"<code>{esc(humanize(reason) if reason.isidentifier() else reason)}</code>"),
            page.bar([(segments / largest, DROPPED)]),
            f"{segments:,}",
            format_number(hours, 2),
            *(f"{int(left_out.get(name, {}).get(reason, {}).get('segments', 0)) or '·'}" for name in sorted(before)),
        ]
        for reason, (segments, hours) in ordered
    ]
    head = ["left out because this does not hold", "", "segments", "hours", *sorted(before)]
    note = page.note(
        "Counted among all segments of the parent, dropped ones included, under the first part that fails."
    )
    return page.join(page.table(head, rows, "wl"), note)


def report_link(output: str, dest: str) -> Html:
    """Link the quality report of a selection, next to this page, and show the commands that make it."""
    text = f'The <a href="quality.html">quality report</a> of <code>{esc(dest)}</code> compares it with '
    text += f"<code>{esc(output)}</code>, and is in its folder <code>reports</code>. To make it:"
    return page.join(Html(f"<p>{text}</p>"), Html(f"<pre><code>audiopipe report {esc(shlex.quote(dest))}</code></pre>"))
