"""Find the audio of a video in its tar, and the files next to it, without trusting any of the tar's claims.

Nothing is ever unpacked. The names of members are read for their suffixes and never used as paths, so '../' and '/etc'
are only unusual names; links and devices are skipped, because nothing follows them. Whatever would cost excessive
memory or time is refused: compression, sparse maps, headers of headers, thousands of members.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

from audiopipe.errors import BadTar, EmptySource, NoAudio
from audiopipe.media.sidecars import MAX_SIDECAR_BYTES, SidecarTooLarge, is_junk, is_sidecar
from audiopipe.types import AUDIO_SUFFIXES

__all__ = ["ByteRange", "TarContents", "read_tar"]

MAX_MEMBERS = 1000
MAX_HEADER_BYTES = 1 << 18  # extended attributes of macOS and Linux have up to 128 KB
MAX_ALL_HEADERS_BYTES = 4 << 20
MAX_NAME_BYTES = 4096
MAX_CONSECUTIVE_HEADERS = 8
BLOCK = tarfile.BLOCKSIZE
PAX_HEADERS = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
HEADERS = PAX_HEADERS | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
RECORD_LENGTH = re.compile(rb"([0-9]{1,7}) ")
# What tarfile raises, in addition to its own errors, when the numbers in headers are absurd.
TAR_ERRORS = (tarfile.TarError, ValueError, OverflowError, EOFError, LookupError)


@dataclass(frozen=True)
class ByteRange:
    """A member's data: `offset` is from the start of the tar."""

    offset: int
    size: int


@dataclass(frozen=True)
class TarContents:
    """The audio of a tar as a byte range (`offset` from the start of the tar), and the files next to it by name."""

    offset: int
    size: int
    audio: str = ""
    sidecars: Mapping[str, ByteRange] = field(default_factory=dict)

    def read(self, file: IO[bytes], name: str) -> bytes:
        """Read a file next to the audio.

        Raises:
            SidecarTooLarge: it is too large for metadata or captions.
        """
        member = self.sidecars[name]
        if member.size > MAX_SIDECAR_BYTES:
            raise SidecarTooLarge(member.size)
        file.seek(member.offset)
        return file.read(member.size)


class _TarFile(tarfile.TarFile):
    """A tar that counts the headers read so far: those in a row, and the bytes of all."""

    consecutive_headers = 0
    header_bytes = 0


class _ValidatingTarInfo(tarfile.TarInfo):
    """A member whose headers are validated before the standard library acts on them.

    Headers of extended fields (PAX) are not given to it at all: its parser takes quadratic time before Python 3.11.10.
    """

    def _proc_member(self, tar: _TarFile) -> tarfile.TarInfo:
        is_header = self.type in HEADERS
        tar.consecutive_headers = tar.consecutive_headers + 1 if is_header else 0
        tar.header_bytes += self.size if is_header else 0
        limit = MAX_HEADER_BYTES if self.type in PAX_HEADERS else MAX_NAME_BYTES
        # The standard library reads each header within the call for the previous one, so that many exhaust the stack.
        if is_header and (not 0 <= self.size <= limit or tar.consecutive_headers > MAX_CONSECUTIVE_HEADERS):
            raise BadTar(f"it has a header of {self.size} bytes, number {tar.consecutive_headers} in a row")
        if tar.header_bytes > MAX_ALL_HEADERS_BYTES:
            raise BadTar(f"it has more than {MAX_ALL_HEADERS_BYTES >> 20} MB of headers")
        if self.type == tarfile.GNUTYPE_SPARSE:
            # The bytes of a sparse member are not where a byte range would find them, and its map may claim anything.
            raise BadTar(f"{_short_name(self)} is a sparse member")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _proc_pax(self, tar: _TarFile) -> tarfile.TarInfo:
        """Read the name and the size of the next member from an extended header; ignore a global one."""
        assert tar.fileobj is not None
        fields = parse_extended_header(tar.fileobj.read(-(-self.size // BLOCK) * BLOCK)[: self.size])
        try:
            member: tarfile.TarInfo = self.fromtarfile(tar)
        except tarfile.HeaderError as error:
            raise BadTar(f"no member follows an extended header: {error}") from None
        if self.type == tarfile.XGLTYPE:
            if b"path" in fields or b"size" in fields:
                raise BadTar("it has a name or a size for all its members")
            return member
        if b"path" in fields:
            member.name = fields[b"path"].decode(errors="backslashreplace").rstrip("/")
        if b"size" in fields:
            if not re.fullmatch(rb"[0-9]{1,19}", fields[b"size"]):
                raise BadTar(f"{_short_name(member)} has the size {fields[b'size'][:30]!r}")
            member.size = int(fields[b"size"])
            has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
            tar.offset = member.offset_data + (-(-member.size // BLOCK) * BLOCK if has_data else 0)
        return member


def parse_extended_header(data: bytes) -> dict[bytes, bytes]:
    """Parse the records `LENGTH KEY=VALUE\\n` of an extended header (POSIX.1-2001, pax), in linear time.

    Raises:
        BadTar: a record is invalid, or says that the member is sparse.
    """
    fields: dict[bytes, bytes] = {}
    position = 0
    while position < len(data) and data[position]:  # zeros may follow the last record
        match = RECORD_LENGTH.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise BadTar(f"its extended header is invalid at byte {position}")
        key, separator, value = data[match.end() : end - 1].partition(b"=")
        if not separator or key.startswith(b"GNU.sparse."):
            raise BadTar(f"its extended header has {key[:60]!r}" + (": it is sparse" if separator else " and no value"))
        limit = MAX_NAME_BYTES if key == b"path" else len(data)
        if len(value) > limit:
            raise BadTar(f"it has a name of {len(value)} bytes")
        fields[key] = value
        position = end
    return fields


def read_tar(file: IO[bytes], size: int, label: str) -> TarContents:
    """Find the one audio member of a tar and the files next to it.

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
    members = [member for member in _iterate_members(file, size) if not is_junk(member.name)]
    audio = _choose_audio([member for member in members if _suffix(member) in AUDIO_SUFFIXES])
    sidecars = {
        member.name: ByteRange(member.offset_data, member.size) for member in members if is_sidecar(member.name)
    }
    return TarContents(audio.offset_data, audio.size, audio.name, sidecars)


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


def _iterate_members(file: IO[bytes], size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar, with every claim checked against the bytes that are there."""
    end = 0
    names: set[str] = set()
    with _TarFile.open(
        fileobj=file, mode="r:", tarinfo=_ValidatingTarInfo, encoding="utf-8", errors="backslashreplace"
    ) as tar:
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


def _suffix(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).suffix.lower()


def _short_name(member: tarfile.TarInfo) -> str:
    return repr(member.name[-60:])
