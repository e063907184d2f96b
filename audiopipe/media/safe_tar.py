"""A video's tar from a stranger: find its audio, its metadata and its captions, and believe nothing that it claims.

Nothing is ever unpacked. Names are looked at for their suffix and never used as paths, so '../' and '/etc' are only
odd names; links and devices are passed over, since nothing follows them. What would cost memory or time out of
proportion is refused: compression, sparse maps, headers of headers, thousands of members.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, NoReturn

from audiopipe.errors import BadTar, EmptySource, NoAudio

__all__ = ["AUDIO_SUFFIXES", "TarContents", "read_tar"]

AUDIO_SUFFIXES = frozenset({".webm", ".opus", ".ogg", ".m4a", ".mp4", ".mp3", ".flac", ".wav", ".mkv"})
CAPTION_SUFFIXES = (".vtt", ".srt")

MAX_MEMBERS = 1000
MAX_DOCUMENT_BYTES = 32 << 20
MAX_HEADER_BYTES = 1 << 20
MAX_HEADERS_IN_A_ROW = 8
BLOCK = tarfile.BLOCKSIZE
HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
# What tarfile lets out, beside its own errors, when numbers in headers are absurd.
ABSURD = (tarfile.TarError, ValueError, OverflowError, EOFError, LookupError)


@dataclass
class TarContents:
    """Where a tar's audio is (bytes from the tar's start), and the documents beside it."""

    offset: int
    size: int
    document: bytes | None = None
    captions: tuple[str, bytes] | None = None


class _ValidatingTarInfo(tarfile.TarInfo):
    """A member whose header is looked at before the standard library acts on it."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in HEADERS:
            tar.row = getattr(tar, "row", 0) + 1  # type: ignore[attr-defined]
            # Each is read by a call from within the last one's: a row of them would exhaust the stack.
            if self.size > MAX_HEADER_BYTES or tar.row > MAX_HEADERS_IN_A_ROW:  # type: ignore[attr-defined]
                raise BadTar(f"a header of {self.size} bytes, number {tar.row} in a row")  # type: ignore[attr-defined]
        else:
            tar.row = 0  # type: ignore[attr-defined]
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _refuse_sparse(self, *_: object) -> NoReturn:
        # A sparse member's bytes are not where a byte range would find them, and its map may claim anything.
        raise BadTar(f"{self.name[-60:]!r} is a sparse member")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def read_tar(file: IO[bytes], size: int, label: str) -> TarContents:
    """Find the one audio member of a tar and the documents beside it.

    Args:
        size: of the tar in bytes.
        told: how messages name it.

    Raises:
        BadTar: it is not a whole tar, or holds what we refuse to open.
        NoAudio, EmptySource: no audio in it, or none of it.
    """
    try:
        return _contents(file, size)
    except BadTar as error:
        raise BadTar(f"{label}: {error}") from None
    except (NoAudio, EmptySource) as error:
        raise type(error)(f"{label}: {error}") from None
    except ABSURD as error:
        raise BadTar(f"{label} is not a whole tar: {error}") from None


def _contents(file: IO[bytes], size: int) -> TarContents:
    audio: list[tarfile.TarInfo] = []
    found = TarContents(0, 0)
    for member in _members(file, size):
        suffix = PurePosixPath(member.name).suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            audio.append(member)
        elif suffix == ".json" and found.document is None:
            found.document = _document(file, member)
        elif suffix in CAPTION_SUFFIXES and (found.captions is None or suffix == ".vtt"):
            found.captions = suffix[1:], _document(file, member)
    if not audio:
        raise NoAudio(f"it has no member ending in {', '.join(sorted(AUDIO_SUFFIXES))}")
    if len(audio) > 1:
        names = ", ".join(repr(member.name[-60:]) for member in audio[:3])
        raise BadTar(f"it has {len(audio)} audio members ({names}, …): one is expected")
    if audio[0].size == 0:
        raise EmptySource(f"its audio member {audio[0].name[-60:]!r} has no bytes")
    found.offset, found.size = audio[0].offset_data, audio[0].size
    return found


def _members(file: IO[bytes], size: int) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar, every claim checked against the bytes that are there."""
    end = 0
    names: set[str] = set()
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_ValidatingTarInfo) as tar:
        for count, member in enumerate(tar):
            if count >= MAX_MEMBERS:
                raise BadTar(f"it has more than {MAX_MEMBERS} members")
            has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
            end = member.offset_data + (member.size if has_data else 0)
            if end > size or member.size < 0:
                raise BadTar(f"it is cut short inside {member.name[-60:]!r}, which claims {member.size} bytes")
            if not member.isreg():
                continue
            if member.name in names:
                raise BadTar(f"it has two members named {member.name[-60:]!r}")
            names.add(member.name)
            yield member
    file.seek(-(-end // BLOCK) * BLOCK)
    if file.read(BLOCK) != bytes(BLOCK):
        raise BadTar("it is cut short: it has no end-of-archive block")


def _document(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_DOCUMENT_BYTES:
        raise BadTar(f"{member.name[-60:]!r} has {member.size} bytes of metadata or captions")
    position = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(position)
    return data
