"""Each link of a chained Ogg file is decoded whole, or the file is refused by name.

Links are counted by the granule positions of their pages, which a parser in this module reads.
"""

import random
import struct

import pytest
from factories import config, media_file, source_of, tones

from audiopipe.errors import TruncatedMedia, UndecodableMedia
from audiopipe.media import ogg
from audiopipe.media.decode import decode, probe
from audiopipe.media.limits import refuse_truncated
from audiopipe.media.ogg import find_links

SECONDS = 3
CODECS = {"opus": ("libopus", 48_000, 1), "vorbis": ("libvorbis", 44_100, 2), "flac": ("flac", 22_050, 2)}


@pytest.fixture(scope="module")
def links(tmp_path_factory):
    """Make an Ogg file of each codec, with another rate and number of channels."""
    folder = tmp_path_factory.mktemp("links")
    return {
        name: media_file(folder / f"{name}.ogg", tones(SECONDS, rate, channels), rate, "-c:a", codec).read_bytes()
        for name, (codec, rate, channels) in CODECS.items()
    }


def split_pages(data):
    pages, start = [], 0
    while start < len(data):
        segments = data[start + 26]
        end = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
        pages.append(bytearray(data[start:end]))
        start = end
    return pages


def checksum(page):
    """Set the CRC of a page, bit by bit as RFC 3533 has it."""
    page[22:26] = bytes(4)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7) & 0xFFFFFFFF if crc & 0x80000000 else crc << 1
    page[22:26] = struct.pack("<I", crc)
    return page


def edit(data, change):
    """Apply `change(number, page)` to each page."""
    pages = split_pages(data)
    for number, page in enumerate(pages):
        change(number, page)
        checksum(page)
    return b"".join(pages)


def with_serial(data, serial):
    return edit(data, lambda number, page: page.__setitem__(slice(14, 18), struct.pack("<I", serial)))


def with_flags(data, clear):
    return edit(data, lambda number, page: page.__setitem__(5, page[5] & ~clear))


def shift_granules(data, samples):
    def shift(number, page):
        granule = struct.unpack_from("<q", page, 6)[0]
        struct.pack_into("<q", page, 6, granule + samples if granule > 0 else granule)

    return edit(data, shift)


def damage(data, number):
    """Flip a bit in the checksum of a page."""
    pages = split_pages(data)
    pages[number][22] ^= 1
    return b"".join(pages)


def first_pages(data, count):
    return b"".join(split_pages(data)[:count])


def make_page(page_type, body, serial=7):
    return bytes(checksum(bytearray(b"OggS\0" + bytes([page_type]) + bytes(8) + struct.pack("<IIIB", serial, 0, 0, 1)
                                    + bytes([len(body)]) + body)))  # fmt: skip


def with_skeleton(data):
    first, *rest = split_pages(data)
    fishead = b"fishead\0" + struct.pack("<HH", 3, 0) + bytes(52)
    return make_page(2, fishead) + bytes(first) + make_page(4, b"") + b"".join(rest)


def nest(data):
    """Put a whole page into the comments of an Opus file."""
    first, _, *rest = split_pages(data)
    comments = b"OpusTags" + struct.pack("<I", len(first)) + bytes(first) + bytes(4)
    return bytes(first) + make_page(0, comments, struct.unpack_from("<I", first, 14)[0]) + b"".join(rest)


def multiplex(data, other):
    """Interleave the pages of two files."""
    pairs = zip(split_pages(with_serial(data, 1)), split_pages(with_serial(other, 2)), strict=True)
    return b"".join(bytes(page) for pair in pairs for page in pair)


FALSE_PAGE = b"OggS\0\x02" + bytes(8) + struct.pack("<IIIB", 99, 0, 0xDEADBEEF, 255) + b"\xff" * 255 + b"x" * 300
JUNK = random.Random(1).randbytes

# Each makes a chain of an Opus link `a` and another link `b`; all samples of both are there.
WHOLE = {
    "the same serial number": lambda a, b: with_serial(a, 5) + with_serial(b, 5),
    "no end of stream": lambda a, b: with_flags(a, 4) + with_flags(b, 4),
    "no beginning of stream": lambda a, b: a + with_flags(with_serial(b, 77), 2),
    "no beginning and the same serial number": lambda a, b: with_serial(a, 5) + with_flags(with_serial(b, 5), 2),
    "granules that start late": lambda a, b: shift_granules(a, 1 << 40) + b,
    "granules that start early": lambda a, b: shift_granules(a, -312) + b,
    "other bytes between": lambda a, b: a + JUNK(1000) + b,
    "many other bytes between": lambda a, b: a + JUNK(100_000) + b,
    "zeros between and after": lambda a, b: a + bytes(70_000) + b + bytes(70_000),
    "other bytes before": lambda a, b: JUNK(1000) + a + b,
    "a false page between": lambda a, b: a + FALSE_PAGE + b,
    "a false page before": lambda a, b: FALSE_PAGE + a + b,
    "a page within a page": lambda a, b: nest(a) + b,
    "a link without samples first": lambda a, b: first_pages(b, 2) + a + b,
    "a link without samples between": lambda a, b: a + first_pages(a, 2) + b,
    "a link without samples last": lambda a, b: a + b + first_pages(a, 1),
    "a skeleton": lambda a, b: with_skeleton(a) + with_skeleton(b),
    "several streams": lambda a, b: multiplex(a, a) + b,
    "several streams second": lambda a, b: a + b + multiplex(a, a),
}


def decoded_seconds(path, **parameters):
    source = source_of(path)
    media = probe(source, config(**parameters))
    frames = sum(block.shape[-1] for block in decode(source, media, config(**parameters)))
    refuse_truncated(source, media, frames / media.sample_rate_hz, config(**parameters))
    return frames / media.sample_rate_hz


@pytest.mark.parametrize("second", CODECS)
@pytest.mark.parametrize("name", WHOLE)
def test_both_links_are_whole(tmp_path, links, name, second):
    path = tmp_path / "a.ogg"
    path.write_bytes(WHOLE[name](links["opus"], links[second]))
    count = 3 if name == "several streams second" else 2
    assert decoded_seconds(path) == pytest.approx(count * SECONDS, abs=0.05)


@pytest.mark.parametrize("offset", [0, 512])
@pytest.mark.parametrize("first", CODECS)
def test_a_link_that_is_cut_short_loses_only_its_end(tmp_path, links, first, offset):
    cut = links[first][: len(links[first]) * 2 // 3]
    data = bytes(offset) + cut + links["opus"]
    (tmp_path / "a.ogg").write_bytes(data)
    (start, end), second = find_links(tmp_path / "a.ogg", offset, len(data) - offset)
    assert (start, second) == (offset, (offset + len(cut), len(data)))
    whole = [page for page in split_pages(links[first]) if links[first].index(page) + len(page) <= len(cut)]
    assert end == offset + sum(map(len, whole))
    if offset == 0:
        rate = 48_000 if first == "opus" else CODECS[first][1]
        granule = max(struct.unpack_from("<q", page, 6)[0] for page in whole)
        assert decoded_seconds(tmp_path / "a.ogg") == pytest.approx(granule / rate + SECONDS, abs=0.1)


def test_a_recording_that_joins_a_stream_late_is_not_truncated(tmp_path, links):
    (tmp_path / "a.ogg").write_bytes(shift_granules(links["opus"], 1 << 40))
    assert decoded_seconds(tmp_path / "a.ogg") == pytest.approx(SECONDS, abs=0.02)


REFUSED = {
    "a damaged header": (lambda a: a + damage(a, 0), UndecodableMedia, "link 2 of 2: End of file"),
    "damaged comments": (lambda a: a + damage(a, 1), UndecodableMedia, "link 2 of 2: Invalid data"),
    "no headers": (
        lambda a: a + b"".join(split_pages(with_serial(a, 9))[2:]),
        UndecodableMedia,
        "link 2 of 2: End of file",
    ),
    "damaged samples": (
        lambda a: a + b"".join(damage(a, n)[len(first_pages(a, n)) :][: len(page)] if n in (2, 3, 4) else bytes(page)
                               for n, page in enumerate(split_pages(a))),
        TruncatedMedia,
        "link 2 of 2 ends after",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_link_that_is_lost_is_named(tmp_path, links, name):
    make, error, message = REFUSED[name]
    (tmp_path / "a.ogg").write_bytes(make(links["opus"]))
    with pytest.raises(error, match=message):
        decoded_seconds(tmp_path / "a.ogg")


def test_very_many_false_pages_are_refused_at_once(tmp_path, monkeypatch):
    path = tmp_path / "a.ogg"
    path.write_bytes(FALSE_PAGE * 10_300)
    with pytest.raises(UndecodableMedia, match="damaged in more than 10000 places"):
        find_links(path, 0, path.stat().st_size)
    monkeypatch.setattr(ogg, "MAX_PAGES", 1000)
    path.write_bytes(b"OggS" * 2000)
    with pytest.raises(UndecodableMedia, match="more than 1000 Ogg pages"):
        find_links(path, 0, 8000)
