"""The object of a video on local disk, as the decoder and the segmentation read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from audiopipe.errors import UnreadableSource
from audiopipe.types import CaptionFile, Video, VideoInfo

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """The object of a video on local disk. Close it to remove its scratch copy.

    Attributes:
        path, offset, size: file and byte range of the audio.
        bytes_in: size of the whole object.
        etag: the store's tag of the object, or "sha256:…" where it has none; of bare audio with the sha256 of the files
            next to it that were read.
        document: the JSON next to the audio that has segment times, if any.
        captions: the captions next to the audio, if there are any in its language and no such JSON.
        info: the metadata next to the audio.
        notes: which files next to the audio are not used, and why.
        is_scratch: the file is a copy in the scratch folder.
    """

    video: Video
    path: Path
    offset: int
    size: int
    bytes_in: int
    etag: str
    document: bytes | None = field(default=None, repr=False)
    captions: CaptionFile | None = None
    info: VideoInfo = field(default_factory=VideoInfo)
    notes: tuple[str, ...] = ()
    is_scratch: bool = False

    @property
    def url(self) -> str:
        """The address of the audio for FFmpeg's `subfile` protocol."""
        return self.range_url(self.offset, self.offset + self.size)

    def range_url(self, start: int, end: int) -> str:
        """Return the address of a byte range of `path` for FFmpeg's `subfile` protocol."""
        return f"subfile,,start,{start},end,{end},,:{self.path}"

    def require_readable(self) -> None:
        """Raise `UnreadableSource` if the file cannot be found any more, because its disk or mount is lost."""
        try:
            self.path.stat()
        except OSError as error:
            raise UnreadableSource(f"{self.video.uri}: its file was lost while it was decoded: {error}") from None

    def close(self) -> None:
        """Remove the scratch copy, if there is one."""
        if self.is_scratch:
            self.path.unlink(missing_ok=True)
