"""Find the audio, the JSON and the captions in the tar of a video without trusting any of its claims.

Nothing is ever unpacked. The names of members are read for their suffixes and never used as paths, so '../' and '/etc'
are only unusual names; links and devices are skipped, because nothing follows them. Whatever would cost excessive
memory or time is refused: compression, sparse maps, headers of headers, thousands of members.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, NoReturn

from audiopipe.errors import BadTar, EmptySource, NoAudio
from audiopipe.types import CaptionFile, SegmentSource

__all__ = ["AUDIO_SUFFIXES", "TarContents", "read_tar"]

AUDIO_SUFFIXES = frozenset({".webm", ".opus", ".ogg", ".m4a", ".mp4", ".mp3", ".flac", ".wav", ".mkv"})
CAPTION_FORMATS = {".vtt": SegmentSource.VTT, ".srt": SegmentSource.SRT}

MAX_MEMBERS = 1000
MAX_DOCUMENT_BYTES = 32 << 20
MAX_HEADER_BYTES = 1 << 20
MAX_CONSECUTIVE_HEADERS = 8
BLOCK = tarfile.BLOCKSIZE
HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
# What tarfile raises, in addition to its own errors, when the numbers in headers are absurd.
TAR_ERRORS = (tarfile.TarError, ValueError, OverflowError, EOFError, LookupError)


@dataclass(frozen=True)
class TarContents:
    """The audio of a tar as a byte range (`offset` from the start of the tar), and the documents next to it."""

    offset: int
    size: int
    document: bytes | None = None
    captions: CaptionFile | None = None


@dataclass
class _Members:
    """The members of a tar that matter, by kind, in the order of the tar."""

    audio: list[tarfile.TarInfo] = field(default_factory=list)
    documents: list[tarfile.TarInfo] = field(default_factory=list)
    captions: list[tarfile.TarInfo] = field(default_factory=list)

    def add(self, member: tarfile.TarInfo) -> None:
        suffix = _suffix(member)
        if suffix in AUDIO_SUFFIXES:
            self.audio.append(member)
        elif suffix == ".json":
            self.documents.append(member)
        elif suffix in CAPTION_FORMATS:
            self.captions.append(member)


class _TarFile(tarfile.TarFile):
    """A tar that counts the consecutive headers read so far."""

    consecutive_headers = 0


class _ValidatingTarInfo(tarfile.TarInfo):
    """A member whose header is validated before the standard library acts on it."""

    def _proc_member(self, tar: _TarFile) -> tarfile.TarInfo:
        tar.consecutive_headers = tar.consecutive_headers + 1 if self.type in HEADERS else 0
        # The standard library reads each header within the call for the previous one, so that many exhaust the stack.
        if self.type in HEADERS and (self.size > MAX_HEADER_BYTES or tar.consecutive_headers > MAX_CONSECUTIVE_HEADERS):
            raise BadTar(f"it has a header of {self.size} bytes, number {tar.consecutive_headers} in a row")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _refuse_sparse(self, *_: object) -> NoReturn:
        # The bytes of a sparse member are not where a byte range would find them, and its map may claim anything.
        raise BadTar(f"{_short_name(self)} is a sparse member")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def read_tar(file: IO[bytes], size: int, label: str) -> TarContents:
    """Find the one audio member of a tar and the documents next to it.

    Args:
        size: size of the tar in bytes.
        label: name of the tar in error messages.

    Raises:
        BadTar: it is not a complete tar, or holds something that is refused.
        NoAudio, EmptySource: it has no audio member, or an empty one.
    """
    try:
        return _read_contents(file, size)
    except BadTar as error:
        raise BadTar(f"{label}: {error}") from None
    except (NoAudio, EmptySource) as error:
        raise type(error)(f"{label}: {error}") from None
    except TAR_ERRORS as error:
        raise BadTar(f"{label} is not a whole tar: {error}") from None


def _read_contents(file: IO[bytes], size: int) -> TarContents:
    members = _Members()
    for member in _iterate_members(file, size):
        members.add(member)
    audio = _choose_audio(members.audio)
    return TarContents(
        offset=audio.offset_data,
        size=audio.size,
        document=_read_document(file, members.documents[0]) if members.documents else None,
        captions=_read_captions(file, _choose_captions(members.captions)) if members.captions else None,
    )


def _choose_audio(candidates: list[tarfile.TarInfo]) -> tarfile.TarInfo:
    """Return the only audio member; raise if there is none, more than one, or an empty one."""
    if not candidates:
        raise NoAudio(f"it has no member ending in {', '.join(sorted(AUDIO_SUFFIXES))}")
    if len(candidates) > 1:
        names = ", ".join(map(_short_name, candidates[:3]))
        raise BadTar(f"it has {len(candidates)} audio members ({names}, …): one is expected")
    if candidates[0].size == 0:
        raise EmptySource(f"its audio member {_short_name(candidates[0])} has no bytes")
    return candidates[0]


def _choose_captions(candidates: list[tarfile.TarInfo]) -> tarfile.TarInfo:
    """Return the last WebVTT file, or the first SubRip file if there is no WebVTT."""
    webvtt = [member for member in candidates if CAPTION_FORMATS[_suffix(member)] is SegmentSource.VTT]
    return webvtt[-1] if webvtt else candidates[0]


def _iterate_members(file: IO[bytes], size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar, with every claim checked against the bytes that are there."""
    end = 0
    names: set[str] = set()
    with _TarFile.open(fileobj=file, mode="r:", tarinfo=_ValidatingTarInfo) as tar:
        for count, member in enumerate(tar):
            if count >= MAX_MEMBERS:
                raise BadTar(f"it has more than {MAX_MEMBERS} members")
            has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
            end = member.offset_data + (member.size if has_data else 0)
            if end > size or member.size < 0:
                raise BadTar(f"it is cut short inside {_short_name(member)}, which claims {member.size} bytes")
            if not member.isreg():
                continue
            if member.name in names:
                raise BadTar(f"it has two members named {_short_name(member)}")
            names.add(member.name)
            yield member
    file.seek(-(-end // BLOCK) * BLOCK)
    if file.read(BLOCK) != bytes(BLOCK):
        raise BadTar("it is cut short: it has no end-of-archive block")


def _read_captions(file: IO[bytes], member: tarfile.TarInfo) -> CaptionFile:
    return CaptionFile(CAPTION_FORMATS[_suffix(member)], _read_document(file, member))


def _read_document(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_DOCUMENT_BYTES:
        raise BadTar(f"{_short_name(member)} has {member.size} bytes of metadata or captions")
    file.seek(member.offset_data)
    return file.read(member.size)


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).suffix.lower()


def _short_name(member: tarfile.TarInfo) -> str:
    return repr(member.name[-60:])
