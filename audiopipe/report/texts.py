"""The texts of the kept segments: how fast they are spoken, their vocabulary, and letters of other alphabets."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from audiopipe.report import page
from audiopipe.report.alphabets import letters_outside, script_of
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.groups import largest
from audiopipe.report.histogram import Values, bin_edges
from audiopipe.report.page import Html
from audiopipe.report.ridges import MAX_ROWS, Sample, draw_histograms
from audiopipe.report.text import format_number, format_percent
from audiopipe.scorers.words import count_letters, is_unspaced, normalize, split_words

__all__ = ["texts"]

MAX_TEXTS = 40_000  # are examined; a larger dataset is sampled
BINS = 48
QUANTILES = (0.05, 0.5, 0.95)
MAX_LETTERS, MAX_WORDS = 12, 6


@dataclass
class _Language:
    """The content of the texts of a language. `examples` has the first text with each character."""

    texts: int = 0
    words: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


def texts(tables: DatasetTables) -> Html:
    """Show what is known of the kept segments' texts. Returns an empty piece if none has a text."""
    with_text = tables.kept[tables.kept["text"].notna() & (tables.kept["text"] != "")]
    if not len(with_text):
        return Html("")
    rows, total = with_text, len(with_text)
    if total > MAX_TEXTS:
        rows = rows.sample(MAX_TEXTS, random_state=0).sort_index()
    contents, characters, words = _examine(rows)
    seconds = rows["duration_s"].to_numpy(dtype=float)
    rates = {"characters per second": characters / seconds, "words per second": words / seconds}
    heading = Html("<h2>Texts</h2>")
    sampled = f" Examined are {len(rows):,} of {total:,} texts, drawn at random." if total > len(rows) else ""
    note = page.note(
        "Letters and digits, and words, for each second of sound; of the kept segments with a text. Writing without "
        "spaces, as in Chinese and Japanese, has no words. 5 % of the texts are slower than the first number of a "
        f"language, and 5 % faster than the third.{sampled}"
    )
    charts = page.grid([_rate(rows["language"], values, name) for name, values in rates.items()], two=True)
    table = _rates(tables, with_text, rows["language"], rates)
    return page.join(heading, note, charts, table, _vocabulary(contents), _letters(contents))


def _examine(rows: pd.DataFrame) -> tuple[dict[str, _Language], Values, Values]:
    """Return the content of each language, and for each text its letters and its words; NaN without spaces."""
    languages: dict[str, _Language] = {}
    characters, words = np.zeros(len(rows)), np.zeros(len(rows))
    for index, (name, text) in enumerate(zip(rows["language"], rows["text"], strict=True)):
        language = languages.setdefault(name, _Language())
        normal = normalize(text)
        letters = count_letters(text)
        unspaced = is_unspaced(normal, count_letters(normal))
        split = [] if unspaced else split_words(normal)
        characters[index], words[index] = letters, np.nan if unspaced else len(split)
        language.texts += 1
        language.words.update(split)
        counts = Counter(unicodedata.normalize("NFC", text))
        for letter in counts.keys() - language.characters.keys():
            language.examples[letter] = text
        language.characters.update(counts)
    return dict(sorted(languages.items())), characters, words


def _rate(language: pd.Series, values: Values, name: str) -> Html:
    finite = values[np.isfinite(values)]
    title = name[0].upper() + name[1:]
    if not len(finite):
        return page.figure("", title, "no text has words that spaces separate")
    groups = largest(Counter(language), MAX_ROWS)
    chart = draw_histograms(Sample(values, language), groups, bin_edges(finite, BINS), name, "per second", None, 470)
    return page.figure(chart, title, f"median {format_number(float(np.median(finite)), 1)}")


def _rates(tables: DatasetTables, with_text: pd.DataFrame, language: pd.Series, rates: Mapping[str, Values]) -> Html:
    """Show a row for each language: the share of kept segments with a text, and how fast these are spoken.

    Args:
        language: of the texts that were examined, as `rates`.
    """
    kept, known = (rows["language"].value_counts() for rows in (tables.kept, with_text))
    *body, last = [
        [name, format_percent(part, whole), *(cell for values in rates.values() for cell in _quantiles(values[chosen]))]
        for name, part, whole, chosen in [
            *(
                (str(name), int(known[name]), int(kept[name]), (language == name).to_numpy())
                for name in sorted(language.unique())
            ),
            ("all", len(with_text), len(tables.kept), np.ones(len(language), dtype=bool)),
        ]
    ]
    head = [
        f"{unit} {q:.0%}".replace("50%", "median").replace("%", " %")
        for unit in ("characters/s", "words/s")
        for q in QUANTILES
    ]
    return page.table(["language", "with text", *head], body, "l", last)


def _quantiles(values: Values) -> list[str]:
    finite = values[np.isfinite(values)]
    return [format_number(float(np.quantile(finite, q)) if len(finite) else None, 1) for q in QUANTILES]


def _vocabulary(languages: Mapping[str, _Language]) -> Html:
    """Show a row for each language: its words, distinct words and distinct characters."""
    body: list[list[str | Html]] = [
        [
            name,
            f"{language.texts:,}",
            f"{language.words.total():,}" if language.words else "–",
            f"{len(language.words):,}" if language.words else "–",
            f"{len(language.characters):,}",
            Html(", ".join(page.bdi(word) for word, _ in language.words.most_common(MAX_WORDS)) or "–"),
        ]
        for name, language in languages.items()
    ]
    head = ["language", "texts", "words", "distinct words", "distinct characters", "the most frequent words"]
    return page.join(Html("<h4>Vocabulary</h4>"), page.table(head, body, "l    w"))


def _letters(languages: Mapping[str, _Language]) -> Html:
    """Show the letters that are not in the alphabet of the segments' language, with a text that has the first."""
    body: list[list[str | Html]] = []
    for name, language in languages.items():
        outside = letters_outside(language.characters, name)
        if not outside:
            continue
        letters = sum(count for letter, count in language.characters.items() if letter.isalpha())
        shown = [f"<b>{page.bdi(letter)}</b>&nbsp;{count:,}" for letter, count in outside.most_common(MAX_LETTERS)]
        more = f" and {len(outside) - MAX_LETTERS:,} more" if len(outside) > MAX_LETTERS else ""
        scripts = Counter(script_of(letter).capitalize() for letter in outside.elements())
        example = language.examples[outside.most_common(1)[0][0]]
        body.append(
            [
                name,
                f"{outside.total():,}",
                format_percent(outside.total(), letters),
                ", ".join(script for script, _ in scripts.most_common(3)),
                Html(", ".join(shown) + more),
                f"“{example[:100]}”",
            ]
        )
    heading = Html("<h4>Letters outside the alphabet</h4>")
    if not body:
        return page.join(heading, page.note("Every letter is in the alphabet of its segment's language."))
    note = page.note(
        "Alphabets are the exemplar sets of Unicode CLDR with their auxiliary letters, and of a language without a set "
        "the script of most of its letters. A few are names; many are texts in another language or a wrong encoding."
    )
    head = ["language", "letters", "of all", "scripts", "the most frequent", "an example"]
    return page.join(heading, note, page.table(head, body, "l  lww"))
