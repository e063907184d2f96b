"""Read captions in XML where simple: YouTube's srv1 to srv3, and TTML with its times on paragraphs or on their spans.

Times on TTML's `div` and `body` are refused unless they are 0: the standard adds them to those of the paragraphs, and
files of lyrics have both on the same clock.

The parser keeps no tree, and refuses document types, so that neither depth nor entities cost memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from audiopipe.errors import BadSegments
from audiopipe.segment.text import normalize_text, parse_markup, raw_line
from audiopipe.segment.transcript import Transcript, bound_count, bound_text, end_on_screen, parse_timestamp
from audiopipe.types import Seconds, Span

__all__ = ["is_timed_xml", "parse_xml"]

ROOT = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--[^>]{0,1000}-->\s*)?<(?:[\w.-]{1,40}:)?(tt|timedtext|transcript)[\s>]"
)
OFFSET_TIME = re.compile(r"(\d{1,12}(?:\.\d{0,12})?)(h|m|s|ms|f|t)", re.ASCII)
FRAME_TIME = re.compile(r"(\d{2,6}:\d\d:\d\d):(\d{1,4})(?:\.\d{1,4})?", re.ASCII)
MAX_AGENT = 200  # characters
MILLISECOND = 1e-3
TIMES = frozenset({"begin", "end", "dur"})


def is_timed_xml(text: str) -> bool:
    """Check whether text is XML with the root element of a format that `parse_xml` reads."""
    return text.lstrip()[:1] == "<" and ROOT.match(text) is not None


def parse_xml(text: str) -> Transcript:
    """Read the paragraphs of a file.

    Raises:
        BadSegments: it has a document type, or times on other elements than paragraphs and their spans.
        expat.ExpatError: it is not well-formed.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.add
    parser.StartDoctypeDeclHandler = _refuse_doctype
    # The text is decoded, whatever its declaration says.
    parser.Parse(re.sub(r"^\s*<\?xml[^>]{0,200}\?>", "", text), True)
    spans = reader.spans
    if reader.root == "tt":  # its ends are the author's
        return Transcript(spans, reader.automatic)
    return end_on_screen(spans, reader.automatic)


def _refuse_doctype(*_: object) -> None:
    raise BadSegments("the captions in XML have a document type, which is not read; remove it")


@dataclass
class _Reader:
    """Collects the paragraphs of one file while the parser walks through it."""

    spans: list[Span] = field(default_factory=list)
    root: str | None = None
    automatic: bool = False
    frame_rate: float = 30.0
    tick_rate: float = 1.0
    paragraph: Mapping[str, str] | None = None
    pieces: list[str] = field(default_factory=list)
    first_offset_s: Seconds | None = None
    timed_spans: list[Mapping[str, str] | None] = field(default_factory=list)  # open `span` elements; those with times
    has_timed_spans: bool = False
    timed_from: int = 0  # the first of `pieces` in the span with times

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag, values = _local(name), {_local(key): value for key, value in attributes.items()}
        if self.root is None:
            self.root = tag
            self._read_rates(values)
        elif tag == "br" and self.paragraph is not None:
            self.pieces.append("\n")
        elif tag == "s" and self.paragraph is not None and self.root == "timedtext":
            self.automatic = self.automatic or "t" in values
            if self.first_offset_s is None:
                self.first_offset_s = _parse_float(values.get("t", "0")) * MILLISECOND
        elif tag == ("p" if self.root == "tt" or "d" in values else "text") or (tag in ("p", "text") and "t" in values):
            self.paragraph, self.pieces, self.first_offset_s = values, [], None
            self.timed_spans, self.has_timed_spans = [], False
        elif self.root == "tt" and tag in ("body", "div", "span"):
            self._start_ttml(tag, values)

    def _start_ttml(self, tag: str, values: dict[str, str]) -> None:
        """Note a span with times in a paragraph without; the times of a paragraph are those of all of its spans.

        Raises:
            BadSegments: there are times on other elements.
        """
        if tag == "span" and self.paragraph is not None:
            is_timed = "begin" in values and not TIMES & self.paragraph.keys()
            if is_timed and any(self.timed_spans):
                raise BadSegments(
                    "the TTML has times on a 'span' within another, which are not read; convert it to WebVTT"
                )
            self.timed_from = len(self.pieces) if is_timed else self.timed_from
            self.timed_spans.append(values if is_timed else None)
        elif values.get("timeContainer", "par") != "par" or self._parse_ttml(values.get("begin", "0s")) != 0:
            raise BadSegments(f"the TTML has times on '{tag}', which are not read; convert it to WebVTT")

    def end(self, name: str) -> None:
        tag = _local(name)
        if tag == "span" and self.timed_spans:
            times = self.timed_spans.pop()
            if times is not None and self.paragraph is not None:
                self._add_span({**self.paragraph, **times}, "".join(self.pieces[self.timed_from :]).strip())
                del self.pieces[self.timed_from :]
                self.has_timed_spans = True
        elif self.paragraph is not None and tag in ("p", "text"):
            raw = "".join(self.pieces).strip()
            if self.has_timed_spans and raw:
                raise BadSegments("the TTML has text next to a 'span' with times; convert it to WebVTT")
            if not self.has_timed_spans:
                self._add_span(self.paragraph, raw)
            self.paragraph = None

    def _add_span(self, values: Mapping[str, str], raw: str) -> None:
        start, end = self._times(values)
        bound_text(raw.count("\n"), len(raw), start)
        if raw or self.root == "tt":
            text, speaker, sound_event = parse_markup(raw, has_tags=False)
            agent = normalize_text(values.get("agent", "")[:MAX_AGENT].lstrip("#"))
            self.spans.append(
                Span(start, end, text, speaker or agent, sound_event if raw else None, raw_line(raw) or None)
            )
            bound_count("xml", len(self.spans))

    def add(self, text: str) -> None:
        if self.paragraph is not None:
            self.pieces.append(text)

    def _read_rates(self, values: Mapping[str, str]) -> None:
        numerator, _, denominator = values.get("frameRateMultiplier", "1 1").partition(" ")
        multiplier = _parse_float(numerator) / (_parse_float(denominator or "1") or math.nan)
        self.frame_rate = _parse_float(values.get("frameRate", "30")) * multiplier
        self.tick_rate = _parse_float(values.get("tickRate", "1"))

    def _times(self, values: Mapping[str, str]) -> tuple[Seconds, Seconds]:
        if self.root == "tt":
            start = self._parse_ttml(values.get("begin", "0s"))
            ends = [self._parse_ttml(values["end"])] if "end" in values else []
            ends += [start + self._parse_ttml(values["dur"])] if "dur" in values else []
            return start, min(ends, default=math.nan)
        if "t" in values:
            start = _parse_float(values["t"]) * MILLISECOND
            return start + (self.first_offset_s or 0.0), start + _parse_float(values.get("d", "")) * MILLISECOND
        start = _parse_float(values.get("start", ""))
        return start, start + _parse_float(values.get("dur", ""))

    def _parse_ttml(self, value: str) -> Seconds:
        """Parse a time of TTML: clock time, with frames, or a number with its unit."""
        value = value.strip()
        if match := OFFSET_TIME.fullmatch(value):
            units: dict[str, Callable[[float], float]] = {
                "h": lambda number: number * 3600,
                "m": lambda number: number * 60,
                "s": lambda number: number,
                "ms": lambda number: number / 1000,
                "f": lambda number: number / self.frame_rate,
                "t": lambda number: number / self.tick_rate,
            }
            return units[match[2]](float(match[1])) if self.frame_rate > 0 and self.tick_rate > 0 else math.nan
        if match := FRAME_TIME.fullmatch(value):
            return parse_timestamp(match[1]) + int(match[2]) / self.frame_rate if self.frame_rate > 0 else math.nan
        return parse_timestamp(value)


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition(" ")[2]


def _parse_float(value: str) -> float:
    try:
        return float(value) if len(value) < 30 else math.nan
    except ValueError:
        return math.nan
