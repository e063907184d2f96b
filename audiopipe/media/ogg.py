"""Find the links of a chained Ogg file: complete Ogg files that follow each other, as recordings of radio streams have.

FFmpeg's demuxer reads a chain as one stream: it keeps the pre-skip of the first link for all of them and loses those
whose codec or rate differs. Decoded separately, each link has its own header, delay and clock.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audiopipe.errors import UndecodableMedia

__all__ = ["find_links", "starts_as_ogg"]

CAPTURE = b"OggS"
HEADER = struct.Struct("<4sBBqIIIB")  # RFC 3533: pattern, version, type, granule, serial, sequence, CRC, segments
CRC_OFFSET = 22
NO_SAMPLES = (0, -1)  # granule positions of headers, and of pages on which no packet ends
CONTINUED, FIRST_PAGE = 1, 2
# The first bytes of the first packet of a stream.
CODECS = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex   ", b"fishead\0", b"\x80theora", b"BBCD\0", b"\x80kate")
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# A file of nothing but false or tiny pages must not take minutes. Twelve hours of a page per packet have 2 million.
MAX_PAGES, MAX_DAMAGES = 5_000_000, 10_000


@dataclass(frozen=True)
class _Page:
    """A page with its place in the file. `has_samples` is true where its granule position counts samples."""

    start: int
    end: int
    is_first: bool
    is_header: bool
    has_samples: bool
    serial: int


@dataclass
class _Link:
    """A link while its pages are read."""

    start: int
    end: int
    serials: set[int]
    has_samples: bool = False


def starts_as_ogg(path: Path, offset: int) -> bool:
    """Check whether the bytes from `offset` on start with an Ogg page."""
    if not path.is_file():  # opening a pipe would wait for its writer
        return False
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(len(CAPTURE)) == CAPTURE


def find_links(path: Path, offset: int, size: int) -> list[tuple[int, int]]:
    """Return the start and the end of each link of an Ogg file, as offsets in `path`; the whole file if it is not one.

    A link starts with the first pages of its streams: pages that say so, that hold the header of a codec, or that
    belong to a stream that the link does not have. Damaged pages, other bytes between pages, and pages that are cut
    short are passed over, and so are links of nothing but headers.

    Args:
        offset, size: the byte range of the Ogg file.

    Raises:
        UndecodableMedia: it has very many pages or damages.
    """
    links: list[_Link] = []
    has_data = False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        checks = _Checks(data)
        for page in _iterate_pages(data, offset, offset + size, checks):
            serials = links[-1].serials if links else set()
            is_new = page.serial not in serials or (page.is_first and has_data)
            # A flipped bit in a page of samples may change its number or its type, but not its checksum.
            starts_stream = page.is_header or (is_new and checks.is_intact(page.start, page.end))
            if not links or (starts_stream and (has_data or page.serial in serials)):
                links.append(_Link(page.start, page.end, {page.serial}))
                has_data = False
            elif starts_stream:
                serials.add(page.serial)
            else:
                has_data = True
            links[-1].end = page.end
            links[-1].has_samples |= page.has_samples
    audible = [(link.start, link.end) for link in links if link.has_samples]
    return audible if len(links) > 1 and audible else [(offset, offset + size)]


def _iterate_pages(data: mmap.mmap, start: int, end: int, checks: _Checks) -> Iterator[_Page]:
    """Yield the pages of a file; after bytes that are not a page, continue with the next one."""
    position, pages = start, 0
    while 0 <= position <= end - HEADER.size:
        pages += 1
        if pages > MAX_PAGES:
            raise UndecodableMedia(f"it has more than {MAX_PAGES} Ogg pages; re-encode it")
        page = _read_page(data, position, end)
        # The length of a page that is cut short leads into the middle of the next link.
        if page and (
            page.end == end or data[page.end : page.end + 4] == CAPTURE or checks.is_intact(position, page.end)
        ):
            yield page
            position = page.end
        else:
            position = data.find(CAPTURE, position + 1, end)


def _read_page(data: mmap.mmap, start: int, end: int) -> _Page | None:
    """Read the header of a page; None if there is none, or if it goes beyond the end."""
    pattern, version, page_type, granule, serial, _, _, segments = HEADER.unpack_from(data, start)
    if pattern != CAPTURE or version != 0:
        return None
    table = start + HEADER.size
    body = table + segments
    page_end = body + sum(data[table:body])
    if page_end > end:
        return None
    is_header = not page_type & CONTINUED and data[body : body + 8].startswith(CODECS)
    return _Page(start, page_end, bool(page_type & FIRST_PAGE), is_header, granule not in NO_SAMPLES, serial)


class _Checks:
    """Computes the checksums of a bounded number of pages."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._count = data, 0

    def is_intact(self, start: int, end: int) -> bool:
        """Check the CRC of a page, which is computed with its own bytes as zeros (RFC 3533, polynomial 0x04c11db7)."""
        self._count += 1
        if self._count > MAX_DAMAGES:
            raise UndecodableMedia(f"its Ogg pages are damaged in more than {MAX_DAMAGES} places; re-encode it")
        page = bytearray(self._data[start:end])
        expected = int.from_bytes(page[CRC_OFFSET : CRC_OFFSET + 4], "little")
        page[CRC_OFFSET : CRC_OFFSET + 4] = bytes(4)
        # zlib has the same polynomial with the bits in the other order, and inverts before and after.
        reflected = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        return int(f"{reflected:032b}"[::-1], 2) == expected
