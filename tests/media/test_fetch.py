import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiopipe.errors import (
    AudiopipeError,
    BadSegments,
    BadTar,
    EmptySource,
    MissingSource,
    NoAudio,
    StoreError,
    VideoError,
)
from audiopipe.media.fetch import Source, fetch
from audiopipe.media.safe_tar import MAX_MEMBERS, read_tar
from audiopipe.types import AUDIO_SUFFIXES, CaptionFile, SegmentSource, Video

AUDIO = b"RIFF" + bytes(2000)


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def fetch_tar(data: bytes, tmp_path: Path) -> Source:
    (tmp_path / "v.tar").write_bytes(data)
    return fetch(Video("v", "en", str(tmp_path / "v.tar")), tmp_path)


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


GOOD = member("a.wav", AUDIO)


def test_audio_is_a_byte_range_of_the_tar_and_documents_are_read(tmp_path: Path) -> None:
    source = fetch_tar(
        tar_of(member("a.json", b"{}"), GOOD, member("a.srt", b"srt"), member("a.vtt", b"vtt")), tmp_path
    )
    assert source.path.read_bytes()[source.offset : source.offset + source.size] == AUDIO
    assert source.document is None
    assert source.captions == CaptionFile(SegmentSource.VTT, b"vtt", name="a.vtt")
    assert source.etag.startswith("sha256:")
    assert not source.is_scratch


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES))
def test_a_file_with_a_suffix_of_audio_is_audio_itself(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    path.write_bytes(AUDIO)
    source = fetch(Video("a", "en", str(path)), tmp_path)
    assert (source.offset, source.size) == (0, len(AUDIO))
    in_tar = fetch_tar(tar_of(member(f"a{suffix}", AUDIO)), tmp_path)
    assert in_tar.path.read_bytes()[in_tar.offset : in_tar.offset + in_tar.size] == AUDIO


@pytest.mark.parametrize("name", ["a.aiff", "a.tar.gz"])
def test_a_file_of_another_suffix_says_why_it_was_read_as_a_tar(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"FORM" + bytes(2000))
    with pytest.raises(
        BadTar, match=rf"read as a tar because its suffix '{Path(name).suffix}' is none of \.aac, .*\.webm"
    ):
        fetch(Video("a", "en", str(tmp_path / name)), tmp_path)


HARMLESS = {
    "a path out of the folder": member("../../../../etc/passwd.json", b"{}"),
    "an absolute name": member("/etc/cron.d/x.json", b"{}"),
    "a symbolic link": member("x.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": member("x.flac", type=tarfile.LNKTYPE, linkname="a.wav"),
    "a device": member("x.mp3", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a pipe": member("x.ogg", type=tarfile.FIFOTYPE),
    "a folder": member("x.m4a", type=tarfile.DIRTYPE),
    "control characters": member("\x1b[2J\n.txt", b"x"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_an_unusual_member_is_skipped_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    source = fetch_tar(tar_of(GOOD, HARMLESS[name]), tmp_path)
    assert source.path.read_bytes()[source.offset : source.offset + source.size] == AUDIO
    assert [path.name for path in tmp_path.iterdir()] == ["v.tar"]


def sparse_pax() -> bytes:
    return tar_of(member("a.wav", AUDIO, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}))


REFUSED = {
    "no tar at all": (b"\x00\x01garbage" * 200, BadTar, "not a whole tar"),
    "compressed": (gzip.compress(tar_of(GOOD)), BadTar, "not a whole tar"),
    "a bomb of gzip": (gzip.compress(bytes(50 << 20)), BadTar, "not a whole tar"),
    "nothing": (b"", EmptySource, "no bytes"),
    "no audio": (tar_of(member("a.txt", b"x")), NoAudio, "no member ending in"),
    "only a link to audio": (
        tar_of(member("a.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        NoAudio,
        "no member",
    ),
    "two audios": (tar_of(GOOD, member("b.mp3", AUDIO)), BadTar, "2 audio members"),
    "the same name twice": (tar_of(GOOD, GOOD), BadTar, "two members named 'a.wav'"),
    "an empty audio": (tar_of(member("a.wav")), EmptySource, "has no bytes"),
    "ten thousand members": (tar_of(*(member(f"{n}", b"") for n in range(10_000)), GOOD), BadTar, f"{MAX_MEMBERS}"),
    "a claim of 4 GB": (header("a.wav", tarfile.REGTYPE, 4 << 30) + AUDIO, BadTar, "claims 4294967296 bytes"),
    "a claim of 8 EB": (header("a.wav", tarfile.REGTYPE, 1 << 62) + bytes(2048), BadTar, "claims"),
    "a claim by what has no type": (header("a", b"Z", 1 << 62) + bytes(2048), BadTar, "claims"),
    "a PAX header of 3 MB": (
        tar_of(member("a.wav", AUDIO, pax_headers={"comment": "x" * (3 << 20)})),
        BadTar,
        "a header of",
    ),
    "a row of PAX headers": (
        (header("x", tarfile.XHDTYPE, 512) + b"12 path=abc\n".ljust(512, b"\0")) * 2000 + tar_of(GOOD),
        BadTar,
        "in a row",
    ),
    "a long name of 2 MB": (header("x", tarfile.GNUTYPE_LONGNAME, 2 << 20) + bytes(2 << 20), BadTar, "a header of"),
    "a sparse member": (header("a.wav", tarfile.GNUTYPE_SPARSE, 512) + bytes(2048), BadTar, "sparse"),
    "a sparse member by PAX": (sparse_pax(), BadTar, "sparse"),
    "cut in the audio": (tar_of(GOOD)[:1500], BadTar, "cut short"),
    "cut before its end": (tar_of(GOOD)[: 512 + 2048], BadTar, "no end-of-archive"),
    "40 MB of JSON": (tar_of(GOOD, member("a.json", bytes(40 << 20))), BadSegments, "a.json: it has 41943040 bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_tar_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    data, error, reason = REFUSED[name]
    with pytest.raises(error, match=reason) as caught:
        fetch_tar(data, tmp_path)
    assert str(tmp_path / "v.tar") in str(caught.value)
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=3000), st.integers(0, 4095), st.integers(0, 255))
def test_any_bytes_give_a_video_error_or_a_range_within_the_file(data: bytes, position: int, byte: int) -> None:
    good = bytearray(tar_of(member("a.json", b"{}"), GOOD))
    good[position % len(good)] = byte
    for tar in (data, bytes(good), bytes(good[:512]) + data):
        try:
            contents = read_tar(io.BytesIO(tar), len(tar), "x")
        except VideoError:
            continue
        assert 0 <= contents.offset <= contents.offset + contents.size <= len(tar)


def test_a_missing_object_is_a_retriable_error(tmp_path: Path) -> None:
    with pytest.raises(MissingSource) as caught:
        fetch(Video("v", "en", str(tmp_path / "no.tar")), tmp_path)
    assert caught.value.retriable
    with pytest.raises(MissingSource):
        fetch(Video("v", "en", str(tmp_path)), tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(MissingSource):
        fetch(Video("v", "en", str(tmp_path / "file/x.tar")), tmp_path)


def test_a_store_error_is_not_a_video_error() -> None:
    assert not issubclass(StoreError, VideoError)
    assert issubclass(StoreError, AudiopipeError)
