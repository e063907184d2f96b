import http.server
import io
import json
import tarfile
import threading
import time
from functools import partial

import fsspec
import pytest

from audiopipe.catalog.files import read_folder
from audiopipe.errors import BadSegments, MissingSource, NoAudio
from audiopipe.media import sidecars
from audiopipe.media.fetch import fetch
from audiopipe.media.json_files import JsonKind, classify_json
from audiopipe.media.sidecars import SidecarRules, SidecarTooLarge, choose_sidecars, is_junk, is_sidecar
from audiopipe.types import Video

AUDIO = "v.webm"
SEGMENTS = json.dumps({"segments": [{"start": 0, "end": 1, "text": "a"}]}).encode()
AUTOMATIC = b"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nso<00:00:01.200><c> it</c>\n"
MANUAL = b"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nso it\n"


def choose(files, language="en", audio=AUDIO, **rules):
    files = dict.fromkeys(files, MANUAL) if not isinstance(files, dict) else files
    return choose_sidecars(tuple(files), files.__getitem__, audio, language, SidecarRules(**rules))


def captions_of(files, language="en", **rules):
    chosen = choose(files, language, **rules).captions
    return chosen and chosen.name


CHOICES = [
    ("en", ["v.de.vtt", "v.en.vtt", "v.fr.vtt"], "v.en.vtt"),
    ("en", ["v.en-orig.vtt", "v.fr-en.vtt", "v.zh-Hans-en.vtt"], "v.en-orig.vtt"),
    ("zh-Hans", ["v.en.vtt", "v.zh-CN.vtt", "v.zh-TW.vtt"], "v.zh-CN.vtt"),
    ("zh", ["v.yue.vtt", "v.zh-Hant.vtt"], "v.zh-Hant.vtt"),
    ("cmn", ["v.zh-Hans.vtt", "v.en.vtt"], "v.zh-Hans.vtt"),
    ("pt-BR", ["v.pt-PT.vtt", "v.pt.vtt", "v.es.vtt"], "v.pt.vtt"),
    ("pt", ["v.pt-br.vtt", "v.es.vtt"], "v.pt-br.vtt"),
    ("no", ["v.da.vtt", "v.nb.vtt", "v.sv.vtt"], "v.nb.vtt"),
    ("sr", ["v.hr.vtt", "v.bs.vtt"], None),
    ("de", ["v.ger.srt", "v.eng.srt"], "v.ger.srt"),
    ("he", ["v.iw.vtt", "v.ar.vtt"], "v.iw.vtt"),
    ("de", ["v.en.vtt", "v.fr.vtt"], None),
    ("de", ["v.en.vtt"], None),
    ("de", ["v.en-orig.vtt", "v.de-en.vtt"], "v.de-en.vtt"),
    ("de", ["v.de-en.vtt", "v.de.vtt"], "v.de.vtt"),
    ("en", ["v.en-eEY6OEpapPo.vtt", "v.de-DE.vtt"], "v.en-eEY6OEpapPo.vtt"),
    ("en", ["v.vtt", "v.de.vtt"], "v.vtt"),
    ("en", ["v.vtt", "v.en.vtt"], "v.en.vtt"),
    ("en", ["v.en.forced.srt", "v.en.sdh.srt"], "v.en.sdh.srt"),
    ("en", ["v.en.forced.srt"], None),
    ("en", ["v.en.srt", "v.en.vtt", "v.en.ttml"], "v.en.vtt"),
    ("en", ["._v.en.vtt", "__MACOSX/v.en.vtt"], None),
    ("en", ["a.vtt", "b.vtt"], None),
    ("fr", ["subs/fr.vtt", "subs/en.vtt"], "subs/fr.vtt"),
    ("und", ["v.en.vtt"], "v.en.vtt"),
    ("und", ["v.en.vtt", "v.en-GB.vtt"], "v.en.vtt"),
    ("und", ["v.de.vtt", "v.en.vtt"], None),
    ("und", ["v.en-orig.vtt", "v.de.vtt", "v.de-en.vtt"], "v.en-orig.vtt"),
    ("und", ["v.vtt", "v.srt"], "v.vtt"),
    ("lang1", ["v.en.vtt"], "v.en.vtt"),
]


@pytest.mark.parametrize(("language", "names", "expected"), CHOICES)
def test_captions_are_chosen_by_the_language_of_the_video(language, names, expected):
    for order in (names, names[::-1]):
        chosen = captions_of(order, language)
        assert chosen == (expected and expected.rpartition("/")[2])


def test_the_note_names_the_languages_if_none_fits():
    assert choose(["v.fr.vtt", "v.en.vtt"], "de").notes == ("captions: none in 'de' among en, fr",)
    (note,) = choose(["v.fr.vtt", "v.en.vtt"], "und").notes
    assert "not chosen among en, fr" in note
    assert "caption_languages" in note
    (note,) = choose(["v.en-orig.vtt", "v.de-en.vtt"], "de").notes
    assert note == "captions: v.de-en.vtt is translated from 'en'"


def test_caption_languages_override_that_of_the_video():
    names = ["v.de.vtt", "v.en.vtt", "v.fr.vtt"]
    assert captions_of(names, "en", caption_languages=("fr", "de")) == "v.fr.vtt"
    assert captions_of(names, "und", caption_languages=("de",)) == "v.de.vtt"
    assert captions_of(names, "en", caption_languages=("it",)) is None


def test_manual_captions_precede_automatic_ones():
    files = {"v.en.vtt": AUTOMATIC, "v.en-GB.vtt": MANUAL, "v.en-orig.vtt": AUTOMATIC}
    assert captions_of(files) == "v.en-GB.vtt"
    info = json.dumps({"title": "t", "subtitles": {"en-GB": []}, "automatic_captions": {"en": [], "de": []}}).encode()
    files = {"v.en.srt": MANUAL, "v.en-GB.srt": MANUAL, "v.info.json": info}
    assert captions_of(files) == "v.en-GB.srt"


def test_the_metadata_gives_the_language_that_the_catalog_lacks():
    files = {"v.de.vtt": MANUAL, "v.en.vtt": MANUAL, "v.info.json": b'{"title": "t", "language": "de"}'}
    assert captions_of(files, "und") == "v.de.vtt"
    assert captions_of(files, "en") == "v.en.vtt"


def test_the_json_with_segments_wins_in_any_order():
    files = {"v.info.json": b'{"title": "t"}', "v.json": SEGMENTS, "v.comments.json": b'[{"id": 1, "text": "x"}]'}
    for names in (list(files), list(files)[::-1]):
        chosen = choose({name: files[name] for name in names})
        assert chosen.document == SEGMENTS
        assert chosen.info.title == "t"
        assert chosen.notes == ("ignored v.comments.json: a list or value without segment times",)


IGNORED = {
    "v.live_chat.json": b'{"a": 1}\n{"a": 2}\n',
    "v.chat.json": b'{"a": 1}\n{"a": 2}\n',
    "v.comments.json": b'[{"id": "x", "text": "first"}]',
    "v.info.json": b'{"title": ',
    "empty.json": b"[]",
    "number.json": b"5",
}


@pytest.mark.parametrize("name", IGNORED)
def test_a_json_without_segments_is_ignored_with_a_note(name):
    chosen = choose({name: IGNORED[name], "v.en.vtt": MANUAL})
    assert chosen.document is None
    assert chosen.captions is not None
    assert name in chosen.notes[0]


def test_a_live_chat_is_not_even_read():
    def read(name):
        raise AssertionError(name)

    assert choose_sidecars(["v.live_chat.json"], read, AUDIO, "en", SidecarRules()).document is None


def test_two_json_files_with_segments_are_refused_by_name():
    files = {"a.json": SEGMENTS, "b.json": SEGMENTS, "v.en.vtt": MANUAL}
    with pytest.raises(BadSegments, match=r"a\.json and b\.json both have segments"):
        choose(files)
    assert choose(files, segments="captions").captions is not None
    assert choose(files, segments="voice").captions is None


def test_a_broken_json_is_handed_over_unless_another_has_segments():
    assert choose({"v.json": b'{"segments": ['}).document == b'{"segments": ['
    assert choose({"v.json": b"{", "w.json": SEGMENTS}).document == SEGMENTS


def test_metadata_is_bounded_text_that_utf8_can_encode():
    info = {"title": "a\ud800b\n" + "x" * 5000, "uploader": "c", "upload_date": 20260101, "language": "en-US"}
    chapters = [{"start_time": 0, "end_time": float("nan"), "title": "all"}, "x"]
    chosen = choose({"v.info.json": json.dumps(info | {"chapters": chapters}).encode()}).info
    assert (chosen.channel, chosen.upload_date, chosen.language) == ("c", "20260101", "en-US")
    assert chosen.title.startswith("a?b x")
    assert len(chosen.title.encode()) <= 1000
    assert json.loads(chosen.chapters) == [{"start_time": 0.0, "end_time": None, "title": "all"}]


def test_hidden_files_and_those_of_operating_systems_are_junk():
    assert all(map(is_junk, ["._v.m4a", "./._v.vtt", "__MACOSX/v.m4a", "a/__MACOSX/._v", ".DS_Store", "x/.v.json"]))
    assert not any(map(is_junk, ["./v.m4a", "../v.m4a", "a/v.m4a", "_v.m4a"]))
    assert not is_sidecar("v.webp")


def test_a_tar_of_macos_has_one_audio(tmp_path):
    def write(*members):
        with tarfile.open(tmp_path / "v.tar", "w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return fetch(Video("v", "en", str(tmp_path / "v.tar")), tmp_path)

    source = write(("./._v.m4a", b"\0\5\x16\7"), ("./v.m4a", b"audio"), ("./._v.vtt", b"\0\5"), ("./v.vtt", MANUAL))
    assert source.path.read_bytes()[source.offset : source.offset + source.size] == b"audio"
    assert source.captions.data == MANUAL
    with pytest.raises(NoAudio):
        write(
            ("__MACOSX/._v.m4a", b"\0\5\x16\7"),
        )


def test_captions_next_to_bare_audio_are_read_in_a_folder_and_a_store(tmp_path):
    store = fsspec.filesystem("memory")
    files = {"v.webm": b"audio", "v.de.vtt": b"", "v.en.vtt": MANUAL, "v.info.json": b'{"title": "t"}'}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        store.pipe(f"/sidecars/{name}", data)
    for root in (str(tmp_path), "memory://sidecars"):
        source = fetch(Video("v", "en", f"{root}/v.webm", sidecars=tuple(list(files)[1:])), tmp_path)
        assert (source.captions.data, source.captions.name, source.info.title) == (MANUAL, "v.en.vtt", "t")
        with pytest.raises(MissingSource, match=r"v\.en\.srt"):
            fetch(Video("v", "en", f"{root}/v.webm", sidecars=("v.en.srt",)), tmp_path)


def test_the_tag_of_bare_audio_covers_the_files_next_to_it(tmp_path):
    def tag_of(*sidecars):
        return fetch(Video("v", "en", str(tmp_path / "v.webm"), sidecars=sidecars), tmp_path).etag

    for name, data in {"v.webm": b"audio", "v.de.vtt": b"", "v.en.vtt": MANUAL}.items():
        (tmp_path / name).write_bytes(data)
    alone, before = tag_of(), tag_of("v.de.vtt", "v.en.vtt")
    assert before.startswith(f"{alone}+sidecars:")
    assert before == tag_of("v.en.vtt", "v.de.vtt") != alone
    (tmp_path / "v.en.vtt").write_bytes(MANUAL + b"\n")
    assert tag_of("v.de.vtt", "v.en.vtt") not in (alone, before)


def test_metadata_that_is_too_large_is_ignored_by_name():
    def read(name):
        if name in ("v.info.json", "v.json"):
            raise SidecarTooLarge(40 << 20)
        return b"WEBVTT\n"

    names = ("v.en.vtt", "v.info.json")
    chosen = choose_sidecars(names, read, "v.wav", "en", SidecarRules())
    assert chosen.captions is not None
    assert chosen.notes == (f"ignored v.info.json: {SidecarTooLarge(40 << 20)}",)
    with pytest.raises(BadSegments, match=r"v\.json: it has 41943040 bytes"):  # it may have the segments
        choose_sidecars(("v.json", *names), read, "v.wav", "en", SidecarRules())


def test_the_files_next_to_the_audio_are_bounded_together(monkeypatch):
    monkeypatch.setattr(sidecars, "MAX_READ_BYTES", 1000)
    names = tuple(f"v{number}.info.json" for number in range(200))
    for count, message in ((9, "have more than 0 MB"), (101, "101 JSON files are next to the audio")):
        with pytest.raises(BadSegments, match=message):
            choose_sidecars(names[:count], lambda name: b'{"a": 1}' + b" " * 200, "v.wav", "en", SidecarRules())


def test_a_name_that_cannot_be_printed_is_readable_in_notes():
    chosen = choose_sidecars(("v.\x1b\udcff.json",), lambda name: b"{'", "v.wav", "en", SidecarRules("captions"))
    assert all(note.isprintable() for note in chosen.notes)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 100_000, '{"a":' * 100_000, "1e999", "NaN", '"\\ud800"'])
def test_no_json_value_raises_out_of_the_classification(value):
    for text in (value, f'{{"title": {value}, "chapters": {value}, "subtitles": {value}, "segments": {value}}}'):
        assert classify_json("v.json", text.encode()).kind in JsonKind


def test_names_of_very_many_tags_take_linear_time():
    labels = [label * (4000 // len(label)) for label in ("-en", "en-", "a.", "[", "-")]
    names = tuple(f"v.{number}{label}.vtt" for number in range(20) for label in labels)
    start = time.process_time()
    choose_sidecars(names, lambda name: b"WEBVTT\n", "v.wav", "en", SidecarRules())
    assert time.process_time() - start < 3


def test_captions_next_to_bare_audio_are_read_over_http(tmp_path):
    (tmp_path / "videos/de").mkdir(parents=True)
    for name, data in {
        "a.webm": b"audio",
        "a.de.vtt": MANUAL,
        "a.info.json": b'{"title": "t"}',
        "b.webm": b"b",
    }.items():
        (tmp_path / "videos/de" / name).write_bytes(data)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            rows = read_folder(f"http://127.0.0.1:{server.server_port}/videos/de/*.webm").to_pylist()
            assert [(row["youtube_id"], row["sidecars"]) for row in rows] == [
                ("a", ["a.de.vtt", "a.info.json"]),
                ("b", None),
            ]
            source = fetch(Video("a", "de", rows[0]["r2_tar_key"], sidecars=tuple(rows[0]["sidecars"])), tmp_path)
            assert (source.captions.data, source.captions.name, source.info.title) == (MANUAL, "a.de.vtt", "t")
            assert "+sidecars:" in source.etag
            source.close()
        finally:
            server.shutdown()
            thread.join()
