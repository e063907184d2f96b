"""Find a tone of a known second in the emitted clip of that second, in many containers and with offsets and gaps."""

import io
import json
import subprocess
import tarfile

import av
import numpy as np
import pyarrow.parquet as pq
import soundfile as sf
from factories import config, media_file, shard_of, tar_file

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Video

RATE, SECONDS = 48_000, 9
VIDEO_INPUT = ("-f", "lavfi", "-i", f"color=s=16x16:r=10:d={SECONDS + 4}")
FORMATS = {
    "opus.webm": ["-c:a", "libopus"],
    "vorbis.ogg": ["-c:a", "libvorbis"],
    "aac.m4a": ["-c:a", "aac"],
    "alac.m4a": ["-c:a", "alac"],
    "lame.mp3": ["-c:a", "libmp3lame"],
    "flac.mkv": ["-c:a", "flac"],
    "pcm.wav": ["-c:a", "pcm_s24le"],
}
DELAYED = {
    "late.mkv": ["-c:v", "libx264", "-c:a", "libopus"],
    "late.webm": ["-c:v", "libvpx", "-c:a", "libvorbis"],
    "late.mp4": ["-c:v", "libx264", "-c:a", "aac"],  # with an edit list
}
DELAY_S = 2.0


def hertz_of(second):
    return 500 + 200 * second


def make_ladder(channels=2):
    """Make [C, T]: each second has another tone for its first half."""
    t = np.arange(SECONDS * RATE) / RATE
    mono = 0.3 * np.sin(2 * np.pi * hertz_of(t // 1) * t) * (t % 1 < 0.5)
    return np.stack([mono] * channels)


def make_delayed(source, path, options):
    """Add a picture before which the audio starts `DELAY_S` later."""
    command = [find_ffmpeg(), "-v", "error", "-y", *VIDEO_INPUT, "-itsoffset", str(DELAY_S), "-i", str(source)]
    subprocess.run([*command, "-map", "0:v", "-map", "1:a", *options, str(path)], check=True, timeout=60)


def drop_packets(source, path, is_lost):
    with av.open(source) as whole, av.open(path, "w") as rest:
        stream = whole.streams.audio[0]
        copy = rest.add_stream_from_template(stream)
        for packet in whole.demux(stream):
            if packet.dts is not None and not is_lost(float(packet.pts * stream.time_base)):
                packet.stream = copy
                rest.mux(packet)


def test_emitted_clips_have_the_tone_of_their_second(tmp_path):
    files = {
        name: media_file(tmp_path / name, make_ladder(), RATE, *options).read_bytes()
        for name, options in FORMATS.items()
    }
    for name, options in DELAYED.items():
        make_delayed(tmp_path / "flac.mkv", tmp_path / name, options)
        files[name] = (tmp_path / name).read_bytes()
    drop_packets(tmp_path / "flac.mkv", tmp_path / "gap.mkv", lambda time_s: 3.9 < time_s < 5.9)
    files["gap.mkv"] = (tmp_path / "gap.mkv").read_bytes()
    videos = []
    for name, data in files.items():
        shift = DELAY_S if name.startswith("late") else 0.0
        seconds = [n for n in range(SECONDS) if name != "gap.mkv" or not 3 < n < 6]
        entries = [
            {"start": n + shift - 0.25, "end": n + shift + 0.7, "text": str(n)} for n in seconds if n + shift > 0.2
        ]
        members = {name: data, f"{name}.json": json.dumps({"segments": entries}).encode()}
        path = tar_file(tmp_path / f"{name}.tar", members)
        videos.append(Video(name, "en", str(path)))
    rules = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "duplicate_similarity": None}
    process_shard(shard_of(videos), config(output=str(tmp_path / "out"), sample_rate=48_000, **rules), "run")
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    with tarfile.open(tmp_path / "out/en/audio_000000.tar") as tar:
        clips = {m.name[:-5]: sf.read(io.BytesIO(tar.extractfile(m).read())) for m in tar if m.name.endswith("flac")}
    assert {row["video_id"] for row in rows if row["kept"]} == files.keys()
    for row in rows:
        samples, rate = clips[row["key"]]
        loud = np.flatnonzero(np.abs(samples) > 0.1)
        part = samples[loud[0] : loud[0] + int(0.4 * rate)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 16))
        label = (row["video_id"], row["text"], loud[0] / rate, int(np.argmax(spectrum)) * rate / (1 << 16))
        assert abs(loud[0] / rate - 0.25) < 0.002, label
        assert abs(label[3] - hertz_of(int(row["text"]))) < 5, label
