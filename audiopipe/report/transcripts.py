"""The findings of the scorer `transcript`: what conditions would drop, stock phrases, languages."""

from __future__ import annotations

import pandas as pd

from audiopipe.report import page
from audiopipe.report.conditions import Suggestion, condition_table
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_percent

__all__ = ["transcripts"]

RATE, PHRASE, LANGUAGE, MATCHES = "characters_per_s", "stock_phrase", "text_language", "text_language_matches"
SUGGESTIONS = (
    Suggestion("spoken too fast: the text belongs to more sound", RATE, "characters_per_s <= 30"),
    Suggestion("spoken too slowly: text is missing", RATE, "characters_per_s >= 2"),
    Suggestion("speech recognition in a loop", "repeated_ngram_ratio", "repeated_ngram_ratio <= 0.3"),
    Suggestion("mostly a stock phrase of subtitles", "stock_phrase_ratio", "stock_phrase_ratio < 0.5"),
    Suggestion("text in another language", MATCHES, "text_language_matches"),
    Suggestion("mostly marks of sounds", "mark_ratio", "mark_ratio <= 0.5"),
)
MAX_PHRASES, MAX_LANGUAGES = 10, 8
EXAMPLE_LENGTH = 120


def transcripts(tables: DatasetTables) -> Html:
    """Show what is known of the kept segments' texts. Returns an empty piece if the scorer was not used."""
    if RATE not in tables.columns:
        return Html("")
    heading = Html("<h2>Transcripts</h2>")
    texts = tables.kept[tables.kept["text"].notna()]
    if not len(texts):
        return page.join(heading, page.note("No kept segment has a text."))
    return page.join(
        heading,
        Html("<h4>Conditions that would drop bad transcripts</h4>"),
        condition_table(tables, SUGGESTIONS),
        _phrases(texts),
        _languages(texts),
    )


def _phrases(texts: pd.DataFrame) -> Html:
    """Show the stock phrases with counts, and one text for each."""
    flagged = texts[texts[PHRASE].notna()]
    heading = Html("<h4>Stock phrases</h4>")
    if not len(flagged):
        return page.join(heading, page.note("No text has a stock phrase of subtitles."))
    counts = flagged[PHRASE].value_counts()
    rows = []
    for phrase, count in counts.head(MAX_PHRASES).items():
        matches = flagged[flagged[PHRASE] == phrase]
        example = matches.iloc[0]
        text = str(example["text"])[:EXAMPLE_LENGTH]
        where = f"“{page.bdi(text)}” <small>{esc(example['video_id'])}, {example['start_s']:.1f} s</small>"
        whole = int((matches["stock_phrase_ratio"] >= 0.5).sum())
        by_language = ", ".join(sorted(matches["language"].unique()))
        rows.append(
            [
                phrase,
                page.bar([(count / counts.iloc[0], DROPPED)]),
                f"{count:,}",
                f"{whole:,}",
                by_language,
                Html(where),
            ]
        )
    head = ["phrase", "", "segments", "half the text or more", "languages", "an example"]
    more = f" The {MAX_PHRASES} most frequent of {len(counts):,} are listed." if len(counts) > MAX_PHRASES else ""
    note = page.note(
        "Speech recognition writes such phrases into silence and music. People also say some of them, so listen before "
        f"you drop them.{more}"
    )
    return page.join(heading, note, page.table(head, rows, "ll  lw"))


def _languages(texts: pd.DataFrame) -> Html:
    """Show which languages the texts of each language of the catalog are in."""
    known = texts[texts[LANGUAGE].notna()]
    heading = Html("<h4>Language of the texts</h4>")
    if not len(known):
        return page.join(heading, page.note("Every text is too short to identify its language."))
    counts = known.groupby(["language", LANGUAGE]).size()
    frequent = counts.groupby(level=1).sum().sort_values(ascending=False, kind="stable").index[:MAX_LANGUAGES]
    rows = [_language_row(str(name), group, list(frequent)) for name, group in known.groupby("language")]
    others = known[LANGUAGE].nunique() > len(frequent)
    head = [
        "catalog",
        "",
        "identified",
        "matches",
        "another",
        "unclear",
        *map(str, frequent),
        *(["others"] if others else []),
    ]
    rows = [row if others else row[:-1] for row in rows]
    legend = page.legend({"the catalog's language": KEPT, "another language": BAD})
    note = page.note(
        f"{format_percent(len(known), len(texts))} of the texts are long enough to identify their language. Columns "
        "on the right: the language found, of each row's language in the catalog. A text counts as another language "
        "only if that is clear."
    )
    return page.join(heading, note, page.table(head, rows, "ll"), legend)


def _language_row(name: str, rows: pd.DataFrame, frequent: list[str]) -> list[str | Html]:
    matches = int((rows[MATCHES] == True).sum())  # noqa: E712 - null is neither
    another = int((rows[MATCHES] == False).sum())  # noqa: E712
    counts = rows[LANGUAGE].value_counts()
    cells = [int(counts.get(language, 0)) for language in frequent]
    cells.append(len(rows) - sum(cells))
    return [
        name,
        page.bar([(matches / len(rows), KEPT), (another / len(rows), BAD)]),
        f"{len(rows):,}",
        f"{matches:,}",
        f"{another:,} ({format_percent(another, len(rows))})" if another else "·",
        f"{len(rows) - matches - another:,}" if len(rows) > matches + another else "·",
        *(f"{count:,}" if count else "·" for count in cells),
    ]
