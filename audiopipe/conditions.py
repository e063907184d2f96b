"""Parse conditions over the columns of segments: SQL that computes on one row and can reach nothing else.

DuckDB's own parser makes a tree of the text. Every node must be of a kind, and every function of a list, that is known
to be a pure function of the row; the SQL that is run later is written from the tree, not from the text. Regular
expressions are RE2, which needs time in proportion to the text.
"""

from __future__ import annotations

import atexit
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import duckdb

from audiopipe.errors import ConfigError
from audiopipe.parameter_messages import suggest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS", "Condition", "connect_sealed", "parse_condition"]

ROWS = "segments"  # the name of the table in conditions
HEAD = f"SELECT 1 FROM {ROWS} WHERE "
MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 100  # expressions within each other

Node = dict[str, Any]

STATEMENT_KEYS = {"type", "cte_map", "select_list", "from_table", "where_clause", "aggregate_handling"}
FUNCTION_KEYS = {
    "class", "type", "query_location", "query_location_length", "function_name", "order_bys", "is_operator",
    "arguments", "qualified_name",
}  # fmt: skip
CLASSES = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR",
    "TYPE",
}  # fmt: skip
OPERATORS = {
    "ARRAY_EXTRACT", "ARRAY_SLICE", "COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE", "OPERATOR_IS_NOT_NULL",
    "OPERATOR_IS_NULL", "OPERATOR_NOT", "OPERATOR_NULLIF", "OPERATOR_TRY",
}  # fmt: skip
TYPES = {
    "BIGINT", "BOOLEAN", "DATE", "DECIMAL", "DOUBLE", "FLOAT", "HUGEINT", "INTEGER", "SMALLINT", "TIMESTAMP", "TINYINT",
    "UBIGINT", "UINTEGER", "USMALLINT", "UTINYINT", "VARCHAR",
}  # fmt: skip
NAMES_OF_KINDS = {
    "SUBQUERY": "a subquery", "WINDOW": "a window function", "STAR": "*", "LAMBDA": "a lambda",
    "PARAMETER": "a parameter", "DEFAULT": "DEFAULT", "POSITIONAL_REFERENCE": "a position",
}  # fmt: skip
# Not here: functions that read files, settings, variables or clocks, that are random, and that make values of any
# length from short ones (repeat, lpad, range, format).
FUNCTION_NAMES = """
    + - * / // % ** & | << >> ~ || ^@ ~~ !~~ ~~* !~~* ~~~
    abs add sign ceil ceiling floor round trunc sqrt cbrt exp ln log log2 log10 pow power mod divide multiply subtract
    fdiv fmod sin cos tan asin acos atan atan2 degrees radians pi even isnan isinf isfinite greatest least xor
    nullif ifnull coalesce if bit_count
    like_escape ilike_escape not_like_escape not_ilike_escape regexp_matches regexp_full_match regexp_extract
    regexp_replace replace translate lower lcase upper ucase length len char_length character_length strlen
    length_grapheme bit_length reverse left right left_grapheme right_grapheme substr substring substring_grapheme
    trim ltrim rtrim concat contains prefix suffix starts_with ends_with instr position strpos
    concat_ws regexp_split_to_array string_to_array
    split_part string_split str_split string_split_regex str_split_regex strip_accents nfc_normalize unicode ord ascii
    chr md5 sha1 sha256 hash levenshtein editdist3 hamming mismatches jaccard jaro_similarity jaro_winkler_similarity
    damerau_levenshtein date_part datepart date_trunc datetrunc date_diff datediff year month day hour minute second
    quarter week weekday dayofweek dayofyear isodow epoch make_date strftime strptime try_strptime to_days to_hours
    to_minutes to_seconds to_months to_years
    list_value array_length list_contains list_has array_contains array_has list_extract list_element array_extract
    list_position list_indexof list_slice array_slice list_min list_max list_sum list_avg list_count list_distinct
    list_unique list_has_any list_has_all list_sort list_dot_product list_inner_product list_cosine_similarity
    list_cosine_distance list_distance row
    """
FUNCTIONS = frozenset(FUNCTION_NAMES.split())


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over the columns of segments.

    Attributes:
        text: the whole as SQL, in one spelling.
        parts: the conditions that must all hold, as SQL.
        columns: the names of the columns it reads, in alphabetical order.
    """

    text: str
    parts: tuple[str, ...]
    columns: tuple[str, ...]

    def find_failures(self, rows: pa.Table) -> list[str | None]:
        """Return for each row the first part that is false, or None.

        A part that is NULL, or that cannot be computed for a row (as the square root of a negative number), is not
        false.

        Args:
            rows: must have the columns that the condition reads.
        """
        tests = " ".join(f"WHEN NOT TRY({part}) THEN {number}" for number, part in enumerate(self.parts))
        with connect_sealed() as connection:
            table = connection.from_arrow(rows.select(list(self.columns)) if self.columns else rows)
            numbers = table.project(f"CASE {tests} END").fetchall()
        return [None if number is None else self.parts[number] for (number,) in numbers]


def parse_condition(text: str, columns: Mapping[str, str]) -> Condition:
    """Parse and check a condition.

    Args:
        columns: DuckDB's type of each column by name.

    Raises:
        ConfigError: it is not a valid condition: wrong syntax, an unknown column or function, no truth value, or
            anything that is not a function of one row.
    """
    with connect_sealed() as connection:
        where = _parse(connection, text)
        names: set[str] = set()
        for node in _walk(where, text):
            _check_node(node, columns, names)
        parts = tuple(dict.fromkeys(_write(connection, part) for part in _conjuncts(where)))
        condition = Condition(" AND ".join(map(_enclosed, parts)), parts, tuple(sorted(names)))
        for part in parts:
            _check_type(connection, part, columns)
    return condition


def connect_sealed() -> duckdb.DuckDBPyConnection:
    """Connect to a database in memory that reaches no file, network or extension; its settings cannot be changed."""
    return _open_sealed().cursor()


@cache
def _open_sealed() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for setting in (
        "threads = 1",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    # A connection that is open when the interpreter ends makes DuckDB print its objects as leaked.
    atexit.register(_open_sealed.cache_clear)
    return connection


def _parse(connection: duckdb.DuckDBPyConnection, text: str) -> Node:
    """Return the tree of a condition."""
    if not text.strip():
        raise ConfigError("the condition is empty; write one such as 'snr_db > 20'")
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"the condition has {len(text):,} characters; at most {MAX_LENGTH:,} are allowed")
    shown = _abridged(text)
    try:
        [(answer,)] = connection.execute(
            "SELECT json_serialize_sql(?::VARCHAR, skip_default := true)", [HEAD + text]
        ).fetchall()
        tree = json.loads(answer)
    except (RecursionError, duckdb.InvalidInputException):
        raise ConfigError(f"the condition is nested too deeply or is not valid text: {shown}") from None
    if tree["error"]:
        message = tree["error_message"].split(". Use ")[0]
        if tree["error_type"] == "not implemented":
            message = "it contains another statement"
        raise ConfigError(f"the condition is not valid SQL: {message}: {shown}")
    statements = tree["statements"]
    node = statements[0]["node"]
    if (
        len(statements) != 1
        or not set(statements[0]) <= {"node", "named_param_map"}
        or not set(node) <= STATEMENT_KEYS
        or node["cte_map"]
        or node["from_table"].get("type") != "BASE_TABLE"
        or "where_clause" not in node
    ):
        raise ConfigError(f"the condition must be one expression, without clauses or statements after it: {shown}")
    where: Node = node["where_clause"]
    return where


def _walk(where: Node, text: str) -> Iterator[Node]:
    """Yield all expressions of a tree."""
    waiting: list[tuple[Any, int]] = [(where, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ConfigError(
                f"the condition has more than {MAX_DEPTH} expressions within each other: {_abridged(text)}"
            )
        if isinstance(value, dict):
            if "class" in value:
                yield value
            waiting.extend((child, depth + ("class" in value)) for child in value.values())
        elif isinstance(value, list):
            waiting.extend((child, depth) for child in value)


def _check_node(node: Node, columns: Mapping[str, str], names: set[str]) -> None:
    """Check an expression without those in it; give columns their exact names and add these to `names`."""
    kind = node["class"]
    if kind not in CLASSES:
        raise ConfigError(f"a condition computes on one segment: {NAMES_OF_KINDS.get(kind, kind)} is not allowed")
    if kind == "COLUMN_REF":
        names.add(_resolve_column(node, columns))
    elif kind == "FUNCTION":
        _check_function(node)
    elif kind == "OPERATOR" and node["type"] not in OPERATORS:
        raise ConfigError(f"the operator {node['type']} is not allowed in a condition")
    elif kind == "TYPE" and node["type_name"] not in TYPES:
        raise ConfigError(f"the type {node['type_name']} is not allowed in a condition")


def _resolve_column(node: Node, columns: Mapping[str, str]) -> str:
    path = node["column_names"]
    name = path[-1] if len(path) == 1 or path[:-1] == [ROWS] else ".".join(path)
    exact = name if name in columns else {known.lower(): known for known in columns}.get(name.lower())
    if exact is None:
        raise ConfigError(f"the condition has an unknown column '{name}': {suggest(name, columns)}")
    node["column_names"] = [exact]
    return exact


def _check_function(node: Node) -> None:
    name = node["function_name"]
    known = name.lower() in FUNCTIONS and node.get("qualified_name", {}).get("path") == [name]
    if not known or not set(node) <= FUNCTION_KEYS or set(node["order_bys"]) - {"type"}:
        matches = difflib.get_close_matches(name, FUNCTIONS, n=1)
        hint = f"; did you mean '{matches[0]}'?" if matches and matches[0] != name else ""
        raise ConfigError(
            f"the function {name}() is not allowed in a condition: only functions of the values of one segment "
            f"are, not those that read files or settings, aggregate, or change from call to call{hint}"
        )


def _conjuncts(node: Node) -> Iterator[Node]:
    """Yield the conditions that must all hold."""
    if node["type"] != "CONJUNCTION_AND":
        yield node
        return
    for child in node["children"]:
        yield from _conjuncts(child)


def _write(connection: duckdb.DuckDBPyConnection, where: Node) -> str:
    """Write an expression as SQL, without parentheses around it."""
    base = {"type": "BASE_TABLE", "table_name": ROWS, "qualified_name": {"path": [ROWS]}}
    constant = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": "INTEGER", "text": "1"}}
    node = {
        "type": "SELECT_NODE", "cte_map": {}, "select_list": [constant], "from_table": base, "where_clause": where,
        "aggregate_handling": "STANDARD_HANDLING",
    }  # fmt: skip
    tree = {"error": False, "statements": [{"node": node}]}
    [(sql,)] = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    text: str = sql.removeprefix(HEAD)
    return text[1:-1] if _is_enclosed(text) else text


def _is_enclosed(text: str) -> bool:
    """Check whether the first parenthesis closes at the end."""
    depth, quote = 0, ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character == "(") - (character == ")")
        if depth == 0:
            return position > 0 and position == len(text) - 1
    return False


def _enclosed(part: str) -> str:
    return f"({part})"


def _check_type(connection: duckdb.DuckDBPyConnection, part: str, columns: Mapping[str, str]) -> None:
    typed = ", ".join(f'NULL::{kind} AS "{name.replace(chr(34), chr(34) * 2)}"' for name, kind in columns.items())
    try:
        [kind] = connection.sql(f"SELECT ({part}) FROM (SELECT {typed or '1'}) {ROWS}").types
    except duckdb.Error as error:
        message = str(error).split("\n")[0]
        raise ConfigError(f"the condition is not valid: {message}: {_abridged(part)}") from None
    if str(kind) != "BOOLEAN":
        raise ConfigError(f"the condition must be true or false, but this part of it is {kind}: {_abridged(part)}")


def _abridged(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
