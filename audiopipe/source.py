"""Fetch a video's object to local disk and find its audio, its metadata and its captions.

Nothing of a tar is ever unpacked: the audio stays where it is, a byte range of a local file, which the decoder
reads in place and may seek in. Member names are looked at for their suffix and are never used as paths.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tenacity import retry, retry_if_not_exception_type, stop_after_attempt, wait_random_exponential

from audiopipe.errors import BadTar, EmptySource, MissingSource, NoAudio, StoreError
from audiopipe.store import open_url
from audiopipe.types import Video

__all__ = ["AUDIO_SUFFIXES", "Source", "fetch"]

AUDIO_SUFFIXES = frozenset({".webm", ".opus", ".ogg", ".m4a", ".mp4", ".mp3", ".flac", ".wav", ".mkv"})
CAPTION_SUFFIXES = (".vtt", ".srt")

MAX_MEMBERS = 1000
MAX_DOCUMENT_BYTES = 32 << 20
CHUNK = 1 << 20
BLOCK = tarfile.BLOCKSIZE


@dataclass
class Source:
    """A video's object on local disk. Close it to give its scratch space back.

    Attributes:
        path, offset, size: where the audio's bytes are.
        document: the JSON beside the audio, if any.
        captions: ("vtt" or "srt", bytes), if any.
        bytes_in: size of the whole object.
        etag: the store's own tag of the object, or "sha256:…" where it has none.
    """

    video: Video
    path: Path
    offset: int
    size: int
    bytes_in: int
    etag: str
    document: bytes | None = field(default=None, repr=False)
    captions: tuple[str, bytes] | None = field(default=None, repr=False)
    scratch: bool = False

    @property
    def url(self) -> str:
        """The audio as ffmpeg's `subfile` protocol names it."""
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{self.path}"

    def close(self) -> None:
        """Remove the scratch copy, if there is one."""
        if self.scratch:
            self.path.unlink(missing_ok=True)


def fetch(video: Video, scratch: Path) -> Source:
    """Bring a video's object to local disk and open it.

    Raises:
        VideoError: the object is missing, empty or not what it should be; trying again would not help.
        StoreError: the store broke off, again and again.
    """
    path, etag, copied = _localise(video, scratch)
    try:
        return _open(video, path, etag, copied)
    except BaseException:
        if copied:
            path.unlink(missing_ok=True)
        raise


def _localise(video: Video, scratch: Path) -> tuple[Path, str, bool]:
    fs, remote = open_url(video.uri)
    try:
        if "file" in fs.protocol:
            path = Path(remote)
            with path.open("rb") as file:
                return path, f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", False
        return _download(fs, remote, scratch)
    except FileNotFoundError:
        raise MissingSource(f"nothing at {video.uri}: the catalogue names an object that is not there") from None
    except IsADirectoryError:
        raise MissingSource(f"{video.uri} is a folder, not an object") from None
    except OSError as error:
        raise StoreError(f"fetching {video.uri}: {error}") from error


@retry(
    retry=retry_if_not_exception_type((FileNotFoundError, PermissionError, IsADirectoryError)),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=20),
    reraise=True,
)
def _download(fs: Any, remote: str, scratch: Path) -> tuple[Path, str, bool]:
    info = fs.info(remote)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="source-", delete=False) as file:
        try:
            for chunk in _ranges(fs, remote, int(info["size"])):
                file.write(chunk)
                digest.update(chunk)
        except BaseException:
            Path(file.name).unlink()
            raise
    etag = str(info.get("ETag") or "").strip('"')
    return Path(file.name), etag or f"sha256:{digest.hexdigest()}", True


def _ranges(fs: Any, remote: str, size: int) -> Iterator[bytes]:
    for start in range(0, size, 8 * CHUNK):
        chunk = fs.cat_file(remote, start=start, end=min(size, start + 8 * CHUNK))
        if len(chunk) != min(size - start, 8 * CHUNK):
            raise OSError(f"got {len(chunk)} bytes of {remote} at {start}, fewer than the store promised")
        yield chunk


def _open(video: Video, path: Path, etag: str, scratch: bool) -> Source:
    size = path.stat().st_size
    if size == 0:
        raise EmptySource(f"{video.uri} has no bytes")
    source = Source(video, path, 0, size, size, etag, scratch=scratch)
    if PurePosixPath(video.uri).suffix.lower() not in AUDIO_SUFFIXES:
        with path.open("rb") as file:
            _read_tar(source, file)
    return source


def _read_tar(source: Source, file: IO[bytes]) -> None:
    """Set where the audio is, and take the documents beside it."""
    audio: list[tarfile.TarInfo] = []
    for member in _members(source, file):
        suffix = PurePosixPath(member.name).suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            audio.append(member)
        elif suffix == ".json" and source.document is None:
            source.document = _document(source, file, member)
        elif suffix in CAPTION_SUFFIXES and (source.captions is None or suffix == ".vtt"):
            source.captions = suffix[1:], _document(source, file, member)
    if not audio:
        raise NoAudio(f"{source.video.uri} has no member ending in {', '.join(sorted(AUDIO_SUFFIXES))}")
    if len(audio) > 1:
        names = ", ".join(repr(member.name[-60:]) for member in audio[:3])
        raise BadTar(f"{source.video.uri} has {len(audio)} audio members ({names}, …): one is expected")
    if audio[0].size == 0:
        raise EmptySource(f"{source.video.uri}: its audio member {audio[0].name[-60:]!r} has no bytes")
    source.offset, source.size = audio[0].offset_data, audio[0].size


def _members(source: Source, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar, every claim checked against the bytes that are there."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for count, member in enumerate(tar):
                if count >= MAX_MEMBERS:
                    raise BadTar(f"{source.video.uri} has more than {MAX_MEMBERS} members")
                end = member.offset_data + (member.size if member.isreg() else 0)
                if end > source.bytes_in:
                    raise BadTar(f"{source.video.uri} is cut short inside {member.name[-60:]!r}")
                # A sparse member's bytes are not where a byte range would find them.
                if member.isreg() and not member.issparse():
                    yield member
    except tarfile.TarError as error:
        raise BadTar(f"{source.video.uri} is not a whole tar: {error}") from None
    file.seek(-(-end // BLOCK) * BLOCK)
    if file.read(BLOCK) != bytes(BLOCK):
        raise BadTar(f"{source.video.uri} is cut short: it has no end-of-archive block")


def _document(source: Source, file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_DOCUMENT_BYTES:
        raise BadTar(f"{source.video.uri}: {member.name[-60:]!r} has {member.size} bytes of metadata or captions")
    position = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(position)
    return data
