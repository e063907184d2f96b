"""Create scorers from their names: built-in ones, those of installed packages, and networks in a file."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from audiopipe.errors import AudiopipeError, ConfigError
from audiopipe.scorers.checks import check_columns, check_identity, check_unique
from audiopipe.scorers.scorer import Column, Scorer

__all__ = ["BUILT_IN", "GROUP", "create_scorers", "known_columns", "known_scorers", "stored_columns"]

GROUP = "audiopipe.scorers"  # of the entry points of other packages: NAME = "MODULE:CLASS"

BUILT_IN = {
    "signal": "audiopipe.scorers.signal:Signal",
    "dnsmos": "audiopipe.scorers.dnsmos:Dnsmos",
    "speakers": "audiopipe.scorers.speakers:Speakers",
    "transcript": "audiopipe.scorers.transcript:Transcript",
    "dnsmos_half": "audiopipe.scorers.dnsmos:HalfDnsmos",
}


def known_scorers() -> list[str]:
    """Return the names of the built-in scorers and of those of installed packages."""
    return [*BUILT_IN, *sorted({item.name for item in entry_points(group=GROUP)} - BUILT_IN.keys())]


def create_scorers(names: str, *, speaker_labels: bool = False, speaker_embeddings: bool = False) -> tuple[Scorer, ...]:
    """Create the scorers of a comma-separated list, in its order.

    Args:
        names: names of scorers; `signal` is first where it is listed. An entry that ends with .yaml is the description
            of a network.
        speaker_labels, speaker_embeddings: options of the scorer `speakers`.

    Raises:
        ConfigError: a scorer is unknown or listed twice, or cannot be created.
        MissingExtra: a scorer's module needs a package that is not installed.
    """
    entries = [name.strip() for name in names.split(",")]
    if not all(entries):
        raise ConfigError(f"scorers '{names}': must be names separated by commas")
    if "signal" in entries[1:]:
        raise ConfigError(f"scorers '{names}': signal must be first, since the others follow it in the pipeline")
    if (speaker_labels or speaker_embeddings) and "speakers" not in entries:
        option = "speaker_labels" if speaker_labels else "speaker_embeddings"
        raise ConfigError(f"{option} needs the scorer 'speakers', and scorers is '{names}'")
    options = {"speakers": {"speaker_labels": speaker_labels, "speaker_embeddings": speaker_embeddings}}
    scorers = tuple(_create(entry, options.get(entry, {})) for entry in entries)
    check_unique("scorer", [scorer.name for scorer in scorers])
    return scorers


def known_columns() -> Iterator[tuple[Scorer, Column]]:
    """Yield the columns of all known scorers that can be created here."""
    for name in known_scorers():
        with suppress(AudiopipeError, ImportError):
            for scorer in create_scorers(name):
                yield from ((scorer, column) for column in stored_columns([scorer]))


def stored_columns(scorers: Sequence[Scorer]) -> tuple[Column, ...]:
    """Return the columns that tables get from scorers, in their order.

    Raises:
        ConfigError: a column is invalid, or two have the same name.
    """
    columns = [column for scorer in scorers for column in check_columns(scorer)]
    check_unique("column", [column.name for column in columns])
    return tuple(column for column in columns if column.stored)


def _create(entry: str, options: dict[str, bool]) -> Scorer:
    factory = _factory_of(entry)
    try:
        scorer = factory(**options)
    except AudiopipeError:
        raise
    except Exception as error:
        raise ConfigError(f"scorer '{entry}' cannot be created: {error!r}") from error
    return check_identity(entry, scorer)


def _factory_of(entry: str) -> Callable[..., object]:
    """Return the class of a scorer.

    Raises:
        ConfigError: no scorer has this name.
    """
    if entry.endswith((".yaml", ".yml")):
        from audiopipe.scorers.network import Network  # noqa: PLC0415 - most runs have no network of this kind

        return partial(Network, entry)
    if entry in BUILT_IN:
        module, _, attribute = BUILT_IN[entry].partition(":")
        factory: Callable[..., object] = getattr(import_module(module), attribute)
        return factory
    points = [item for item in entry_points(group=GROUP) if item.name == entry]
    if not points:
        known = known_scorers()
        matches = difflib.get_close_matches(entry, known, n=1)
        hint = f"did you mean '{matches[0]}'?" if matches else f"known are {', '.join(known)}"
        raise ConfigError(f"unknown scorer '{entry}': {hint}")
    if len({point.value for point in points}) > 1:
        raise ConfigError(f"several packages have a scorer '{entry}': {', '.join(point.value for point in points)}")
    return _load(points[0])


def _load(point: EntryPoint) -> Callable[..., object]:
    try:
        factory: Callable[..., object] = point.load()
    except Exception as error:
        raise ConfigError(f"scorer '{point.name}' ({point.value}) cannot be imported: {error!r}") from error
    return factory
