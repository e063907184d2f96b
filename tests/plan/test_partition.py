import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe.plan.partition import hashtext, partition_of

SMALLEST = ["DKMGIb7tA6Pv"]  # found by running the hash backwards from -2**31
WORD = 0xFFFFFFFF


def rotated(x, bits):
    return (x << bits | x >> (32 - bits)) & WORD


def hash_any(key):
    """`hash_bytes` of PostgreSQL's hashfn.c, byte by byte and line by line."""
    a = b = c = (0x9E3779B9 + len(key) + 3923095) & WORD
    while len(key) >= 12:
        a, b, c = ((x + int.from_bytes(key[i : i + 4], "little")) & WORD for x, i in ((a, 0), (b, 4), (c, 8)))
        a = (a - c & WORD) ^ rotated(c, 4)
        c = c + b & WORD
        b = (b - a & WORD) ^ rotated(a, 6)
        a = a + c & WORD
        c = (c - b & WORD) ^ rotated(b, 8)
        b = b + a & WORD
        a = (a - c & WORD) ^ rotated(c, 16)
        c = c + b & WORD
        b = (b - a & WORD) ^ rotated(a, 19)
        a = a + c & WORD
        c = (c - b & WORD) ^ rotated(b, 4)
        b = b + a & WORD
        key = key[12:]
    shifts = [(0, 0), (0, 8), (0, 16), (0, 24), (1, 0), (1, 8), (1, 16), (1, 24), (2, 8), (2, 16), (2, 24)]
    words = [a, b, c]
    for byte, (word, shift) in zip(key, shifts, strict=False):
        words[word] = words[word] + (byte << shift) & WORD
    a, b, c = words
    c = (c ^ b) - rotated(b, 14) & WORD
    a = (a ^ c) - rotated(c, 11) & WORD
    b = (b ^ a) - rotated(a, 25) & WORD
    c = (c ^ b) - rotated(b, 16) & WORD
    a = (a ^ c) - rotated(c, 4) & WORD
    b = (b ^ a) - rotated(a, 14) & WORD
    c = (c ^ b) - rotated(b, 24) & WORD
    return c - (1 << 32) if c >> 31 else c


def many_ids():
    """100,000 ids: every length from 0 to 64 in one-byte and wider letters, and long ones, and the hardest."""
    chance = random.Random(5)
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
        ids.append(
            "".join(chance.choices(chance.choice(alphabets), k=chance.choice([11, 11, 11, chance.randrange(65)])))
        )
    return ids


def copied(text):
    """A value in PostgreSQL's COPY format."""
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text


@pytest.fixture(scope="module")
def asked(postgres):
    """Ids, and what a real PostgreSQL makes of them: hashtext, and the partition of 7 and of 65,536."""
    ids = many_ids()
    rows = "\n".join(f"{number}\t{copied(text)}" for number, text in enumerate(ids))
    answer = postgres.psql(
        "SET client_encoding = 'UTF8'; CREATE TEMP TABLE ids (number int, id text);\n"
        f"COPY ids FROM STDIN;\n{rows}\n\\.\n"
        "COPY (SELECT hashtext(id), mod(abs(hashtext(id)::bigint), 7), mod(abs(hashtext(id)::bigint), 65536)"
        " FROM ids ORDER BY number) TO STDOUT;\n"
    )
    lines = [line.split("\t") for line in answer.splitlines() if "\t" in line]
    return ids, np.array(lines, np.int64)


def test_a_real_postgresql_hashes_a_hundred_thousand_ids_the_same(asked):
    ids, answer = asked
    assert len(answer) == len(ids) == 100_000
    np.testing.assert_array_equal(hashtext(ids), answer[:, 0])
    assert {len(text.encode()) for text in ids} >= set(range(65))


@pytest.mark.parametrize(("column", "count"), [(1, 7), (2, 65_536)])
def test_a_real_postgresql_gives_every_id_the_same_partition(asked, column, count):
    ids, answer = asked
    np.testing.assert_array_equal(partition_of(ids, count), answer[:, column])


def test_the_smallest_hash_has_a_partition_without_int4_overflow(asked):
    assert hashtext(SMALLEST).tolist() == [-(2**31)]
    assert partition_of(SMALLEST, 7).tolist() == [2**31 % 7]
    ids, answer = asked
    assert answer[ids.index(SMALLEST[0]), 0] == -(2**31)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=70), max_size=20))
def test_hashing_together_is_hashing_alone(ids):
    assert hashtext(ids).tolist() == [hash_any(text.encode()) for text in ids]


def test_arrow_arrays_in_any_shape_hash_as_lists_do():
    ids = ["zzz", "", "ä" * 20, "b", "c" * 12]
    expected = hashtext(ids).tolist()
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert hashtext(pa.array(ids).cast(kind)).tolist() == expected
    whole = pa.array(["skip", *ids, "skip"])
    assert hashtext(whole.slice(1, 5)).tolist() == expected
    assert hashtext(pa.chunked_array([ids[:2], [], ids[2:]])).tolist() == expected
    assert hashtext(pa.chunked_array([], pa.string())).tolist() == hashtext([]).tolist() == []
    assert hashtext(["", ""]).tolist() == [hash_any(b"")] * 2


def test_an_id_that_is_null_or_no_utf8_is_refused():
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
    began = time.process_time()
    hashtext(ids)
    assert time.process_time() - began < 2
