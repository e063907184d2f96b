"""Hostile headers of tars are refused by name, in little time and memory."""

import io
import tarfile
import time
import tracemalloc

import pytest

from audiopipe.errors import BadTar
from audiopipe.media.safe_tar import MAX_ALL_HEADERS_BYTES, MAX_HEADER_BYTES, TarContents, read_tar

AUDIO = b"RIFF" + bytes(2000)
END = bytes(1024)


def block(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Make an extended header with any body, zero-padded to blocks."""
    return block("h", kind, len(body)) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def record(key: str, value: bytes) -> bytes:
    rest = f" {key}=".encode() + value + b"\n"
    size = len(rest) + 1
    while len(str(size)) + len(rest) != size:
        size += 1
    return str(size).encode() + rest


GOOD = block("a.wav", size=len(AUDIO)) + AUDIO.ljust(2048, b"\0")


def signed_size(header: bytes, size: int) -> bytes:
    """Return the header with a size in base 256, which may be negative."""
    raw = bytearray(header)
    raw[124:136] = (size + (1 << 96 if size < 0 else 1 << 95)).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def read(data: bytes) -> TarContents:
    return read_tar(io.BytesIO(data), len(data), "x")


def fill(pattern: bytes, size: int = MAX_HEADER_BYTES) -> bytes:
    return pattern * (size // len(pattern))


HOSTILE = {
    "digits of a charset": extended(fill(b"1")),
    "digits before a charset": extended(fill(b"1" * 60_000 + b" hdrcharset=x", MAX_HEADER_BYTES - 2)),
    "records of two bytes": extended(fill(b"2 ") + b"="),
    "records of five bytes, all headers": fill(extended(fill(b"5 a=\n")) + GOOD, MAX_ALL_HEADERS_BYTES + 2_000_000),
    "a record of no bytes": extended(b"0 a=b\n"),
    "a record of a negative length": extended(b"-9 a=b\n"),
    "a record that ends after the header": extended(b"999999 a=b\n"),
    "a record of a length of very many digits": extended(b"9" * 5000 + b" a=b\n"),
    "a record without a line end": extended(b"6 a=bc"),
    "a record without a value": extended(b"6 abc\n"),
    "blanks": extended(fill(b" ")),
    "a long path": extended(record("path", b"a" * 5000 + b".wav")),
    "a long GNU name": block("x", tarfile.GNUTYPE_LONGNAME, 5000) + fill(b"a", 5120),
    "a long GNU link": block("x", tarfile.GNUTYPE_LONGLINK, 5000) + fill(b"a", 5120),
    "a negative size of an extended header": signed_size(block("x", tarfile.XHDTYPE), -512),
    "a negative size of a member": GOOD + signed_size(block("b"), -1536),
    "a size that leads back to a member": GOOD + signed_size(block("b"), -3072),
    "a huge size": signed_size(block("a.wav"), 1 << 80),
    "a negative size in an extended header": extended(record("size", b"-512")) + GOOD,
    "a size of very many digits": extended(record("size", b"9" * 5000)) + GOOD,
    "a size beyond the end": extended(record("size", b"99999999999")) + GOOD,
    "a size with underscores": extended(record("size", b"2_004")) + GOOD,
    "sparse by version 1.0": extended(record("GNU.sparse.major", b"1") + record("GNU.sparse.minor", b"0")) + GOOD,
    "sparse by a map": extended(record("GNU.sparse.map", b"0,1," * 1000)) + GOOD,
    "sparse by a size": extended(record("GNU.sparse.size", b"9") + record("GNU.sparse.numblocks", b"9" * 50)) + GOOD,
    "a sparse map without an end": block("a.wav", tarfile.GNUTYPE_SPARSE, 512) + b"\1" * (1 << 20),
    "global names": extended(record("path", b"a.wav"), tarfile.XGLTYPE) + GOOD,
    "global headers in a row": extended(record("comment", b"x"), tarfile.XGLTYPE) * 50 + GOOD,
    "long names in a row": (block("x", tarfile.GNUTYPE_LONGNAME, 9) + bytes(512)) * 2000 + GOOD,
    "an extended header at the end": GOOD + extended(record("comment", b"x")),
    "a million members": block("a", tarfile.DIRTYPE) * 100_000 + GOOD,
    "a checksum that is wrong in the middle": GOOD + b"b" * 512 + GOOD,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_at_once(name: str) -> None:
    data = HOSTILE[name] + END
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(BadTar) as caught:
        read(data)
    assert time.process_time() - start < 3  # under 0.5 s alone; tracemalloc makes it slower
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_harmless_headers_of_every_format_are_read(form: int) -> None:
    file = io.BytesIO()
    name = "folder/" * 13 + "é" * 20 + ".wav"
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"comment": "of all members"}) as tar:
        for member, data in ((name, AUDIO), ("captions.vtt", b"WEBVTT")):
            info = tarfile.TarInfo(member)
            info.size, info.mtime = len(data), 1.5
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"SCHILY.xattr.user.a": "x=1\n" * 20_000, "mtime": "1.5"}
            else:
                info.mtime = 1
            tar.addfile(info, io.BytesIO(data))
    contents = read(file.getvalue())
    assert contents.audio == name
    assert file.getvalue()[contents.offset : contents.offset + contents.size] == AUDIO
    assert list(contents.sidecars) == ["captions.vtt"]


def test_a_size_above_8_gb_in_an_extended_header_is_used() -> None:
    data = extended(record("size", b"%d" % len(AUDIO))) + block("a.wav") + AUDIO.ljust(2048, b"\0") + block("b.txt")
    contents = read(data + END)
    assert (contents.audio, contents.size) == ("a.wav", len(AUDIO))


def test_a_name_that_is_not_utf8_is_readable() -> None:
    raw = bytearray(GOOD)
    raw[:7] = b"\xe9a.wav\0"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    assert read(bytes(raw) + END).audio == r"\xe9a.wav"
