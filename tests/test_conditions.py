"""Conditions are pure functions of a row, whatever is written in them."""

import subprocess
import sys
import time

import duckdb
import pyarrow as pa
import pytest

from audiopipe.conditions import MAX_LENGTH, connect_sealed, parse_condition
from audiopipe.errors import ConfigError

COLUMNS = {
    "snr_db": "FLOAT",
    "duration_s": "DOUBLE",
    "text": "VARCHAR",
    "kept": "BOOLEAN",
    "speakers": "INTEGER",
    "other": "VARCHAR",
    "Mixed Case": "FLOAT",
    "embedding": "FLOAT[]",
}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("snr_db>=3 and speakers=1", ("snr_db >= 3", "speakers = 1")),
        ("(snr_db > 3 AND kept) AND (speakers = 1 OR text IS NULL)", None),
        ("SNR_DB > 3 -- a comment", ("snr_db > 3",)),
        ("snr_db > 3 /* AND x */ AND snr_db > 3", ("snr_db > 3",)),
        ('segments."Mixed Case" BETWEEN 1 AND 2', ('"Mixed Case" BETWEEN 1 AND 2',)),
        ("kept", ("kept",)),
        ("true", ("true",)),
        ("text LIKE '%(' OR text = ')'", None),
        ("length(regexp_replace(text, '[^A-Z]', '', 'g')) < 0.5 * length(text)", None),
        ("CASE WHEN speakers > 1 THEN snr_db > 20 ELSE true END", None),
        ("CAST(text AS INTEGER) = 1 AND embedding[1] > 0 AND text[1:2] = 'ab'", None),
        ("text IN ('a', 'b') AND speakers NOT IN (1, 2) AND kept IS NOT NULL", None),
        ("greatest(abs(snr_db), 2 * duration_s) > -1.5e3", None),
        ("text SIMILAR TO '(a+)+b'", None),
        ("if(kept, len(regexp_split_to_array(text, ' ')) > 3, true)", None),
    ],
)
def test_a_condition_is_parsed_and_written_again(text: str, parts: tuple[str, ...] | None) -> None:
    condition = parse_condition(text, COLUMNS)
    assert parts is None or condition.parts == parts
    reparsed = parse_condition(condition.text, COLUMNS)
    assert reparsed == condition
    assert set(condition.columns) <= COLUMNS.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("snr_db >", "not valid SQL"),
        ("snr > 3", "unknown column 'snr': did you mean 'snr_db'?"),
        ("x.y.z > 3", "unknown column 'x.y.z'"),
        ("snr_db", "must be true or false, but this part of it is FLOAT: snr_db"),
        ("kept AND speakers", "this part of it is INTEGER: speakers"),
        ("NULL", "must be true or false"),
        ("text > [1]", "not valid"),
        ("snr_db > 1; DROP TABLE segments", "not valid SQL"),
        ("snr_db > 1; SELECT 1", "one expression"),
        ("snr_db > 1) OR (1 = 1", "not valid SQL"),
        ("snr_db > 1 GROUP BY text", "one expression"),
        ("snr_db > 1 HAVING count(*) > 1", "one expression"),
        ("snr_db > 1 ORDER BY text LIMIT 1", "one expression"),
        ("snr_db > 1 UNION SELECT 2", "one expression"),
        ("snr_db > 1 QUALIFY row_number() OVER () = 1", "one expression"),
        ("1 = 1; COPY segments TO '/tmp/x'", "another statement"),
        ("1 = 1; ATTACH '/tmp/x.db'", "another statement"),
        ("snr_db > (SELECT 1)", "a subquery is not allowed"),
        ("EXISTS (FROM read_text('/etc/passwd'))", "a subquery is not allowed"),
        ("text IN (SELECT content FROM read_text('/etc/passwd'))", "a subquery is not allowed"),
        ("text IN (FROM '/etc/passwd')", "a subquery is not allowed"),
        ("read_text('/etc/passwd') = text", "read_text\\(\\) is not allowed"),
        ("getenv('HOME') = text", "getenv\\(\\) is not allowed"),
        ("current_setting('threads') = '1'", "current_setting\\(\\) is not allowed"),
        ("getvariable('x') = 1", "getvariable\\(\\) is not allowed"),
        ("random() > 0.5", "random\\(\\) is not allowed"),
        ("now() > '2020-01-01'", "is not allowed"),
        ("current_date > '2020-01-01'", "not allowed|unknown column"),
        ("uuid() = text", "uuid\\(\\) is not allowed"),
        ("nextval('s') = 1", "nextval\\(\\) is not allowed"),
        ("error(text)", "error\\(\\) is not allowed"),
        ("count(*) > 1", "count_star\\(\\) is not allowed"),
        ("avg(snr_db) > 1", "avg\\(\\) is not allowed"),
        ("avg(snr_db) OVER () > 1", "a window function is not allowed"),
        ("main.abs(snr_db) > 1", "abs\\(\\) is not allowed"),
        ("system.main.abs(snr_db) > 1", "is not allowed"),
        ("COLUMNS(*) > 1", "\\* is not allowed"),
        ("snr_db > $1", "a parameter is not allowed"),
        ("list_filter(embedding, x -> x > 1)[1] > 0", "is not allowed"),
        ("lenght(text) > 1", "did you mean 'length'"),
        ("repeat(text, 1000000000) = text", "repeat\\(\\) is not allowed"),
        ("CAST(text AS JSON) IS NULL", "type JSON is not allowed"),
        ("text = 'a\x00b' AND", "not valid"),
        ("text = '\ud800'", "not valid text"),
    ],
)
def test_what_is_not_a_function_of_a_row_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_condition(text, COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        "kept AND " * MAX_LENGTH + "kept",
        "NOT " * 2_400 + "kept",
        "NOT " * 150 + "kept",
        "(" * 4_900 + "kept" + ")" * 4_900,
        "CASE WHEN kept THEN " * 400 + "kept" + " END" * 400,
        "abs(" * 1_500 + "snr_db" + ")" * 1_500 + " > 1",
        "snr_db" + " + snr_db" * 1_000 + " > 1",
        "[" * 4_000 + "]" * 4_000 + " = text",
    ],
    ids=lambda text: text[:12],
)
def test_long_and_deep_conditions_are_refused_soon(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        parse_condition(text, COLUMNS)
    assert len(str(caught.value)) < 500
    assert time.monotonic() - started < 5


def test_many_parts_are_allowed() -> None:
    condition = parse_condition(" AND ".join(f"snr_db <> {number}" for number in range(400)), COLUMNS)
    assert len(condition.parts) == 400


def test_failures_name_the_first_false_part() -> None:
    condition = parse_condition("snr_db >= 3 AND CAST(other AS INTEGER) < 2 AND text NOT LIKE '%[%'", COLUMNS)
    rows = pa.table(
        {
            "text": ["a", "a", "a", None, "[Music]", "[Music]"],
            "snr_db": pa.array([5, 1, 5, None, 5, 1], pa.float32()),
            "other": ["1", "3", "3", "not a number", None, "1"],
        }
    )
    first, second, third = condition.parts
    assert condition.find_failures(rows) == [None, first, second, None, third, first]
    assert parse_condition("1 = 2", {}).find_failures(rows) == ["1 = 2"] * 6


def test_a_pattern_that_backtracks_takes_linear_time() -> None:
    condition = parse_condition("regexp_full_match(text, '(a|a)*(a|aa)*b')", COLUMNS)
    started = time.monotonic()
    assert condition.find_failures(pa.table({"text": ["a" * 100_000]})) == list(condition.parts)
    assert time.monotonic() - started < 5


def test_a_sealed_connection_reads_no_file() -> None:
    with connect_sealed() as connection:
        for sql in ("FROM read_text('/etc/passwd')", "SET threads = 2", "ATTACH '/tmp/x.db'", "INSTALL httpfs"):
            with pytest.raises(duckdb.Error):
                connection.execute(sql).fetchall()


def test_a_process_with_running_threads_ends_silently():
    lines = (
        "import threading",
        "from audiopipe.conditions import parse_condition",
        "parse_condition('a > 1', {'a': 'DOUBLE'})",
        "event = threading.Event()",
        "threading.Thread(target=lambda: event.wait(), daemon=True).start()",  # keeps the names of the module
    )
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
