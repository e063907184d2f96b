import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.plan.partition import hashtext, partition_of

SMALLEST = ["DKMGIb7tA6Pv"]  # computed by running the hash backwards from -2**31
MASK = 0xFFFFFFFF


def rotate(x, bits):
    return (x << bits | x >> (32 - bits)) & MASK


def hash_any(key):
    """Compute `hash_bytes` of PostgreSQL's hashfn.c, byte by byte and line by line."""
    a = b = c = (0x9E3779B9 + len(key) + 3923095) & MASK
    while len(key) >= 12:
        a, b, c = ((x + int.from_bytes(key[i : i + 4], "little")) & MASK for x, i in ((a, 0), (b, 4), (c, 8)))
        a = (a - c & MASK) ^ rotate(c, 4)
        c = c + b & MASK
        b = (b - a & MASK) ^ rotate(a, 6)
        a = a + c & MASK
        c = (c - b & MASK) ^ rotate(b, 8)
        b = b + a & MASK
        a = (a - c & MASK) ^ rotate(c, 16)
        c = c + b & MASK
        b = (b - a & MASK) ^ rotate(a, 19)
        a = a + c & MASK
        c = (c - b & MASK) ^ rotate(b, 4)
        b = b + a & MASK
        key = key[12:]
    shifts = [(0, 0), (0, 8), (0, 16), (0, 24), (1, 0), (1, 8), (1, 16), (1, 24), (2, 8), (2, 16), (2, 24)]
    state = [a, b, c]
    for byte, (index, shift) in zip(key, shifts, strict=False):
        state[index] = state[index] + (byte << shift) & MASK
    a, b, c = state
    c = (c ^ b) - rotate(b, 14) & MASK
    a = (a ^ c) - rotate(c, 11) & MASK
    b = (b ^ a) - rotate(a, 25) & MASK
    c = (c ^ b) - rotate(b, 16) & MASK
    a = (a ^ c) - rotate(c, 4) & MASK
    b = (b ^ a) - rotate(a, 14) & MASK
    c = (c ^ b) - rotate(b, 24) & MASK
    return c - (1 << 32) if c >> 31 else c


def many_ids():
    """Make 100,000 ids: of every length from 0 to 64 in one-byte and wider letters, long ones, and the extreme one."""
    rng = random.Random(5)
    alphabets = [
        "abcXYZ019-_",
        "äöüéñ",
        "日本語한국어",
        "😀🎵",
        "aä日😀 \\\t\n\r'\"%",
        "\x01\x7f\x80\u07ff\u0800\uffff\U0010ffff",
    ]
    ids = ["x" * n for n in range(65)] + ["é" * n for n in range(33)] + ["y" * 1000, "日" * 4000, *SMALLEST]
    while len(ids) < 100_000:
        ids.append("".join(rng.choices(rng.choice(alphabets), k=rng.choice([11, 11, 11, rng.randrange(65)]))))
    return ids


def copy_format(text):
    """Escape a value for PostgreSQL's COPY."""
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text


@pytest.fixture(scope="module")
def hashed_ids(postgres):
    """Return ids and what PostgreSQL computes for them: hashtext, and the partition among 7 and among 65,536."""
    ids = many_ids()
    rows = "\n".join(f"{number}\t{copy_format(text)}" for number, text in enumerate(ids))
    output = postgres.psql(
        "SET client_encoding = 'UTF8'; CREATE TEMP TABLE ids (number int, id text);\n"
        f"COPY ids FROM STDIN;\n{rows}\n\\.\n"
        "COPY (SELECT hashtext(id), mod(abs(hashtext(id)::bigint), 7), mod(abs(hashtext(id)::bigint), 65536)"
        " FROM ids ORDER BY number) TO STDOUT;\n"
    )
    lines = [line.split("\t") for line in output.splitlines() if "\t" in line]
    return ids, np.array(lines, np.int64)


def test_hashes_equal_those_of_postgresql(hashed_ids):
    ids, expected = hashed_ids
    assert len(expected) == len(ids) == 100_000
    np.testing.assert_array_equal(hashtext(ids), expected[:, 0])
    assert {len(text.encode()) for text in ids} >= set(range(65))


@pytest.mark.parametrize(("column", "count"), [(1, 7), (2, 65_536)])
def test_partitions_equal_those_of_postgresql(hashed_ids, column, count):
    ids, expected = hashed_ids
    np.testing.assert_array_equal(partition_of(ids, count), expected[:, column])


def test_the_smallest_hash_has_a_partition_without_int4_overflow(hashed_ids):
    assert hashtext(SMALLEST).tolist() == [-(2**31)]
    assert partition_of(SMALLEST, 7).tolist() == [2**31 % 7]
    ids, expected = hashed_ids
    assert expected[ids.index(SMALLEST[0]), 0] == -(2**31)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=70), max_size=20))
def test_hashing_many_ids_equals_hashing_each(ids):
    assert hashtext(ids).tolist() == [hash_any(text.encode()) for text in ids]


def test_arrow_arrays_of_any_kind_hash_like_lists():
    ids = ["zzz", "", "ä" * 20, "b", "c" * 12]
    expected = hashtext(ids).tolist()
    for arrow_type in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert hashtext(pa.array(ids).cast(arrow_type)).tolist() == expected
    whole = pa.array(["skip", *ids, "skip"])
    assert hashtext(whole.slice(1, 5)).tolist() == expected
    assert hashtext(pa.chunked_array([ids[:2], [], ids[2:]])).tolist() == expected
    assert hashtext(pa.chunked_array([], pa.string())).tolist() == hashtext([]).tolist() == []
    assert hashtext(["", ""]).tolist() == [hash_any(b"")] * 2


def test_an_id_that_is_null_or_not_utf8_is_refused():
    with pytest.raises(ValueError, match="null"):
        partition_of(pa.array(["a", None]), 2)
    with pytest.raises(UnicodeEncodeError):
        hashtext(["\ud800"])


def test_partitions_are_even():
    counts = np.bincount(partition_of([f"{i:011x}" for i in range(80_000)], 8), minlength=8)
    assert counts.min() > 9_700
    assert counts.max() < 10_300


def test_half_a_million_ids_take_less_than_two_seconds():
    ids = [f"{i:011x}" for i in range(500_000)]
    started = time.process_time()
    hashtext(ids)
    assert time.process_time() - started < 2
