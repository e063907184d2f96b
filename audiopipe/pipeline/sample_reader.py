"""Read samples from the tars of a dataset as they are: headers, audio and sidecar of each, in one range of bytes.

A local tar is read where it lies; one that was modified after its commit is compared with its sha256 first. Of a remote
tar, ranges that are near each other are fetched by one request into a spool on scratch disk, several at a time; where
that is most of the tar, all of it is fetched and compared.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from audiopipe.dataset.select_lists import Pin
from audiopipe.dataset.virtual import open_tar
from audiopipe.errors import VerifyError
from audiopipe.pipeline.timing import StageTimer
from audiopipe.store.objects import Store

__all__ = ["Extent", "SampleReader", "coalesce", "open_samples", "sample_size"]

BLOCK = tarfile.BLOCKSIZE
SIDECAR_BYTES = 64 << 10  # read after audio where the end of the sample is not known; the rest of a larger one later
MAX_GAP_BYTES = 1 << 20  # a request costs about as much time as a megabyte
MAX_REQUEST_BYTES = 32 << 20
REQUEST_THREADS = 8
OPEN_FILES = 64
KNOWN_TARS = 1 << 16  # whose sha256 a process remembers
WHOLE_SHARE = 0.5  # of a remote tar: where more is read, all is, to compare its sha256

Pins = Mapping[str, Pin]


class Extent(NamedTuple):
    """A range of bytes of a tar; `is_exact` if it is a sample and nothing else."""

    tar: str
    start: int
    size: int
    is_exact: bool

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.start + self.size

    @classmethod
    def of(cls, tar: str, audio_offset: int, audio_bytes: int, sample_bytes: int | None) -> Extent:
        """Return the range of a sample, from the header of its audio on."""
        if sample_bytes is not None:
            return cls(tar, audio_offset - BLOCK, sample_bytes, True)
        return cls(tar, audio_offset - BLOCK, 2 * BLOCK + _padded(audio_bytes) + SIDECAR_BYTES, False)


class SampleReader(Protocol):
    """Reads ranges of tars; a range that exceeds its tar gives fewer bytes."""

    def read(self, tar: str, start: int, size: int) -> bytes: ...
    def close(self) -> None: ...


@contextmanager
def open_samples(
    parent: Store, extents: Sequence[Extent], pins: Pins, folder: Path, timer: StageTimer
) -> Iterator[SampleReader]:
    """Open a reader of some ranges.

    Args:
        pins: size and sha256 of tars, as far as they are known.
        folder: on scratch disk, for what is fetched from a remote store.

    Raises:
        VerifyError: a tar is missing, or has not the size or the bytes that it was committed with.
    """
    places = {tar: open_tar(parent, tar) for tar in sorted({extent.tar for extent in extents})}
    reader: SampleReader
    if all(store.local_folder is not None for store, _ in places.values()):
        reader = _LocalReader(parent, timer)
        for tar, (store, name) in places.items():
            with timer.measure("copy", items=0):
                _check_local(Path(store.path(name)), tar, pins.get(tar))
    else:
        reader = _RemoteReader(parent, extents, pins, folder / "spool", timer)
    with closing(reader):
        yield reader


def sample_size(sample: bytes | memoryview, key: str, suffix: str, audio_bytes: int) -> int:
    """Check the headers of a sample and return its size, sidecar and padding included.

    Args:
        sample: its bytes, at least up to the header of the sidecar.

    Raises:
        ValueError: it is not this sample.
    """
    _check_header(sample[:BLOCK], key + suffix, audio_bytes)
    start = BLOCK + _padded(audio_bytes)
    sidecar_bytes = _check_header(sample[start : start + BLOCK], key + ".json", None)
    end = start + BLOCK + sidecar_bytes
    if end <= len(sample) and sample[end - 1] != ord("}"):
        raise ValueError(f"the sidecar of {key} is damaged")
    return start + BLOCK + _padded(sidecar_bytes)


def coalesce(extents: Sequence[Extent]) -> list[Extent]:
    """Join ranges of the same tar that overlap or are near each other, up to the size of a request."""
    joined: list[Extent] = []
    for extent in sorted(extents):
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.tar == extent.tar
            and extent.start - last.end <= MAX_GAP_BYTES
            and extent.end - last.start <= MAX_REQUEST_BYTES
        ):
            joined[-1] = Extent(last.tar, last.start, max(last.end, extent.end) - last.start, False)
        else:
            joined.append(extent._replace(is_exact=False))
    return joined


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check_header(header: bytes | memoryview, name: str, size: int | None) -> int:
    """Compare a tar header's name, size and checksum; return the size."""
    block = bytes(header)
    if len(block) < BLOCK or block[:100].rstrip(b"\0") != name.encode():
        raise ValueError(f"its row does not point to a member {name}")
    stated = int(block[124:136].strip(b"\0 ") or b"0", 8)
    checksum = int(block[148:156].strip(b"\0 ") or b"0", 8)
    if checksum != 256 + sum(block[:148]) + sum(block[156:]) or size not in (None, stated):
        raise ValueError(f"the header of member {name} is damaged")
    return stated


def _damaged(tar: str, problem: str) -> VerifyError:
    return VerifyError(f"{tar} of the parent {problem}")


def _check_local(path: Path, tar: str, pin: Pin | None) -> None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise _damaged(tar, "is missing") from None
    if pin is None:
        return
    if stat.st_size != pin.size:
        raise _damaged(tar, f"has {stat.st_size:,} bytes and not the {pin.size:,} it was committed with")
    is_modified = not pin.finished_at or stat.st_mtime > datetime.fromisoformat(pin.finished_at).timestamp()
    if is_modified and _sha256_of(str(path), stat.st_size, stat.st_mtime_ns) != pin.sha256:
        raise _damaged(tar, "differs from the sha256 in its commit")


@lru_cache(KNOWN_TARS)
def _sha256_of(path: str, size: int, mtime_ns: int) -> str:
    """Compute the sha256 of a tar once for all shards that a process copies from it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class _LocalReader:
    """Reads tars in a folder. It holds some files open."""

    parent: Store
    timer: StageTimer
    _files: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def read(self, tar: str, start: int, size: int) -> bytes:
        with self.timer.measure("copy"):
            return os.pread(self._open(tar), size, start)

    def _open(self, tar: str) -> int:
        if tar in self._files:
            self._files.move_to_end(tar)
            return self._files[tar]
        if len(self._files) >= OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        store, name = open_tar(self.parent, tar)
        self._files[tar] = os.open(store.path(name), os.O_RDONLY)
        return self._files[tar]

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


class _RemoteReader:
    """Fetches all ranges into a spool at the start, and reads them from there."""

    def __init__(self, parent: Store, extents: Sequence[Extent], pins: Pins, spool: Path, timer: StageTimer) -> None:
        self._parent = parent
        self._timer = timer
        wanted: Counter[str] = Counter()
        for extent in extents:
            wanted[extent.tar] += extent.size
        self._whole = whole = {
            tar for tar, size in wanted.items() if tar in pins and size > WHOLE_SHARE * pins[tar].size
        }
        parts = [extent for extent in extents if extent.tar not in whole]
        for tar in whole:
            size = pins[tar].size
            starts = range(0, size, MAX_REQUEST_BYTES)
            parts += [Extent(tar, start, min(MAX_REQUEST_BYTES, size - start), False) for start in starts]
        self._ranges: dict[str, list[tuple[Extent, int]]] = {}
        end = 0
        for extent in coalesce(parts):
            self._ranges.setdefault(extent.tar, []).append((extent, end))
            end += extent.size
        self._spool = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            ranges = [item for items in self._ranges.values() for item in items]
            with ThreadPoolExecutor(REQUEST_THREADS, "fetch") as pool:
                list(pool.map(lambda item: self._fetch(item[0], item[1], pins.get(item[0].tar)), ranges))
            for tar in sorted(whole):
                self._check_whole(tar, pins[tar].sha256)
        except BaseException:
            self.close()
            raise

    def _fetch(self, extent: Extent, position: int, pin: Pin | None) -> None:
        os.pwrite(self._spool, self._request(extent, pin), position)

    def _request(self, extent: Extent, pin: Pin | None) -> bytes:
        store, name = open_tar(self._parent, extent.tar)
        size = extent.size if pin is None else min(extent.size, pin.size - extent.start)
        try:
            with self._timer.measure("copy"):
                data = store.read_range(name, extent.start, size)
        except FileNotFoundError:
            raise _damaged(extent.tar, "is missing") from None
        if pin is not None and len(data) != size:
            raise _damaged(extent.tar, f"ends before byte {extent.start + size:,}")
        return data

    def _check_whole(self, tar: str, sha256: str) -> None:
        digest = hashlib.sha256()
        for extent, position in self._ranges[tar]:
            digest.update(os.pread(self._spool, extent.size, position))
        if digest.hexdigest() != sha256:
            raise _damaged(tar, "differs from the sha256 in its commit")

    def read(self, tar: str, start: int, size: int) -> bytes:
        ranges = self._ranges[tar]  # adjacent ones lie next to each other in the spool, too
        index = bisect_right(ranges, start, key=lambda item: item[0].start) - 1
        extent, position = ranges[index]
        end = extent.end
        for following, _ in ranges[index + 1 :]:
            if following.start != end or end >= start + size:
                break
            end = following.end
        if start + size > end and tar not in self._whole:  # a sample that is larger than was expected
            return self._request(Extent(tar, start, size, False), None)
        return os.pread(self._spool, min(size, end - start), position + start - extent.start)

    def close(self) -> None:
        os.close(self._spool)
