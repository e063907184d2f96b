"""Answer the queries of a segment table over all segments of a dataset: pages, counts, keys, audio.

Every query is one of a fixed form. What comes from the page is a condition, which `parse_condition` checks as it does
for `audiopipe select`, names of columns, which must exist, and numbers. The database reaches no file but the tables of
this dataset, and audio is read only of a segment of it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.csv

from audiopipe.conditions import parse_condition
from audiopipe.dataset.database import checked
from audiopipe.dataset.reader import SAMPLE_ORDER, Dataset
from audiopipe.dataset.records import finite
from audiopipe.dataset.sql import quote_name
from audiopipe.errors import AudiopipeError, ConfigError
from audiopipe.report.segment_table.columns import TableColumn, describe_columns

__all__ = ["KEY_COLUMNS", "Answer", "SegmentQueries", "audio_type"]

MAX_ROWS = 200  # of a page
MAX_BINS = 100
MAX_VALUES = 200  # of a column that is chosen from
# The columns of the list of keys that a page exports.
KEY_COLUMNS = ("language", "shard", "key", "video_id", "segment", "start_s", "end_s")
IDENTITY = "language, shard, video_id, segment"
SIGNATURES = ((b"fLaC", "audio/flac"), (b"RIFF", "audio/wav"), (b"OggS", "audio/ogg"))
Request = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """The result of a query: values for JSON, and bytes that travel as they are."""

    body: Mapping[str, Any]
    data: bytes | None = None


def audio_type(data: bytes) -> str:
    """Return the media type of an encoded segment, in any format of an output."""
    return next((kind for start, kind in SIGNATURES if data.startswith(start)), "audio/mpeg")


class SegmentQueries:
    """The queries of a table over a dataset, with one open database for all of them."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._connection = dataset.connect()
        self.columns: Sequence[TableColumn] = describe_columns(dataset, self._connection)
        self._kinds = {column.name: column.kind for column in self.columns}
        self._queries: Mapping[str, Callable[[Request], Answer]] = {
            "page": self._page,
            "ranges": self._ranges,
            "charts": self._charts,
            "keys": self._keys,
            "audio": self._audio,
        }

    def answer(self, request: Request) -> Answer:
        """Answer a request of the page; what is wrong with it, or with the dataset, is an answer with `error`."""
        try:
            query = self._queries.get(str(request.get("query")))
            if query is None:
                raise ConfigError(f"unknown query {request.get('query')!r}")
            return query(request)
        except (AudiopipeError, OSError) as error:
            return Answer({"error": f"{type(error).__name__}: {error}"})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return Answer({"error": f"the request is not valid: {error!r}"})

    def _page(self, request: Request) -> Answer:
        """Return the rows of a page, and the number, hours and number with audio of all that match."""
        where, limit, offset = self._where(request), int(request["limit"]), int(request["offset"])
        if not 0 <= limit <= MAX_ROWS or offset < 0:
            raise ConfigError(f"a page has at most {MAX_ROWS} rows")
        [(total, seconds, audio)] = self._rows(
            f"SELECT count(*), coalesce(sum(duration_s), 0), count(tar_offset) FROM segments WHERE {where}"
        )
        # The order needs few columns; all others are read for the rows of the page alone.
        keys = self._rows(
            f"SELECT language, shard, key FROM segments WHERE {where} ORDER BY {self._order(request)} "
            f"LIMIT {limit} OFFSET {offset}"
        )
        return Answer({"rows": self._fetch(keys), "total": total, "seconds": seconds, "audio": audio})

    def _order(self, request: Request) -> str:
        if request.get("seed") is not None:
            return f"{SAMPLE_ORDER.format(seed=int(request['seed']))}, {IDENTITY}"
        if request.get("sort") is None:
            return IDENTITY
        direction = "DESC" if request.get("descending") else "ASC"
        return f"{self._column(request['sort'])} {direction} NULLS LAST, {IDENTITY}"

    def _fetch(self, keys: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
        """Return the rows of segments in the order of their keys."""
        if not keys:
            return []
        names = ", ".join(quote_name(column.name) for column in self.columns)
        rows = self._rows(
            f"SELECT language, shard, key, {names} FROM segments WHERE key IN "
            f"({', '.join('?' * len(keys))}) AND language IN (SELECT unnest(?)) AND shard IN (SELECT unnest(?))",
            [*(key for _, _, key in keys), sorted({row[0] for row in keys}), sorted({row[1] for row in keys})],
        )
        by_key = {row[:3]: list(map(finite, row[3:])) for row in rows}
        return [by_key[key] for key in keys if key in by_key]

    def _ranges(self, request: Request) -> Answer:
        """Return where the middle 99 % of the values of numbers lie, whatever the filters."""
        names = list(request["columns"])
        parts = ", ".join(f"approx_quantile({self._column(name, 'number')}, [0.005, 0.995])" for name in names)
        [row] = self._rows(f"SELECT {parts} FROM segments") if names else [()]
        return Answer({"ranges": {name: span and list(span) for name, span in zip(names, row, strict=True)}})

    def _charts(self, request: Request) -> Answer:
        """Count the rows that match, for the charts of columns.

        Numbers are counted in bins, {column: {low, step, bins}}, of which the outer ones are open; `values` names the
        columns whose values are counted. The condition is computed once for all of them.
        """
        where, bins, values = self._where(request), request.get("bins") or {}, list(request.get("values") or ())
        columns, parts, edges = [*bins, *values], [], []
        if not columns:
            return Answer({"counts": {}, "values": {}})
        for index, (name, bin_range) in enumerate(bins.items()):
            number, low, step = int(bin_range["bins"]), float(bin_range["low"]), float(bin_range["step"])
            if not 1 <= number <= MAX_BINS or not 0 < step < math.inf:
                raise ConfigError(f"a histogram has 1 to {MAX_BINS} bins of a width")
            column = self._column(name, "number")
            place = f"least(greatest(floor(({column} - ?) / ?), 0), {number - 1})::INTEGER"
            parts.append(
                f"SELECT {index}, {place}, NULL, count(*) FROM chosen WHERE isfinite({column}::DOUBLE) GROUP BY 2"
            )
            edges += [low, step]
        for index, name in enumerate(values, len(bins)):
            column = self._column(name, "category", "flag")
            parts.append(f"SELECT {index}, NULL, {column}::VARCHAR, count(*) FROM chosen GROUP BY 3")
        names = ", ".join(dict.fromkeys(map(self._column, columns)))
        rows = self._rows(
            f"WITH chosen AS MATERIALIZED (SELECT {names} FROM segments WHERE {where}) {' UNION ALL '.join(parts)}",
            edges,
        )
        counts = {name: [0] * int(bin_range["bins"]) for name, bin_range in bins.items()}
        by_value: dict[str, list[list[Any]]] = {name: [] for name in values}
        for index, place, value, count in rows:
            name = columns[index]
            if place is not None:
                counts[name][place] = count
            else:
                by_value[name].append([value == "true" if value and self._kinds[name] == "flag" else value, count])
        return Answer({"counts": counts, "values": {name: _most_frequent(pairs) for name, pairs in by_value.items()}})

    def _keys(self, request: Request) -> Answer:
        """Return the keys of all rows that match, as CSV."""
        where, names = self._where(request), ", ".join(map(quote_name, KEY_COLUMNS))
        rows = self._connection.sql(f"SELECT {names} FROM segments WHERE {where} ORDER BY {IDENTITY}")
        buffer = io.BytesIO()
        pyarrow.csv.write_csv(checked(rows.to_arrow_table), buffer)
        return Answer({}, buffer.getvalue())

    def _audio(self, request: Request) -> Answer:
        """Return the encoded audio of a segment, by one ranged read of its tar."""
        relation = self._connection.sql(
            "SELECT * FROM segments WHERE language = ? AND shard = ? AND key = ?",
            params=[str(request["language"]), int(request["shard"]), str(request["key"])],
        )
        rows = checked(relation.to_arrow_table).to_pylist()
        if not rows:
            raise ConfigError(f"the dataset has no segment {request['key']!r}")
        data = self.dataset.segment_of(rows[0]).read_bytes()
        return Answer({"type": audio_type(data)}, data)

    def _where(self, request: Request) -> str:
        text = str(request.get("where") or "true")
        return parse_condition(text, self.dataset.column_types).text

    def _column(self, name: object, *kinds: str) -> str:
        """Return a column as SQL writes it; raise ConfigError if there is none, or none of these kinds."""
        kind = self._kinds.get(str(name))
        if kind is None or (kinds and kind not in kinds):
            raise ConfigError(f"the table has no column {name!r}" + (f" that is a {kinds[0]}" if kinds else ""))
        return quote_name(str(name))

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return checked(lambda: self._connection.execute(sql, list(values)).fetchall())

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def _most_frequent(pairs: list[list[Any]]) -> list[list[Any]]:
    """Sort values and their counts, the most frequent first."""
    return sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))[:MAX_VALUES]
