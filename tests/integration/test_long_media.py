"""The memory of a worker does not grow with the length of a video, a shard or a tar."""

import json
import os
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from factories import media_file, tones

from audiopipe.bench.corpus import load_speech
from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.bench.corpus.mix import PLAIN, mix

pytestmark = pytest.mark.slow

LIMIT_MB = 1536
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))
# A worker that processes a short video, reports that it is ready, and then processes shards in parallel.
WORKER = """
import json, sys, threading
from audiopipe.config import RunConfig
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, Video
import numpy as np, soundfile as sf
folder, shards, segments = json.loads(sys.argv[1])
def run(name, index, paths):
    config = RunConfig.of(catalog="c", output=f"{folder}/{name}", scratch=folder, min_loudness_lufs=None,
                          max_silence_ratio=None, min_snr_db=None, segments=segments)
    videos = tuple(Video(f"v{i}", "en", path) for i, path in enumerate(paths))
    return process_shard(Shard("en", index, 0, videos), config, "run")
sf.write(f"{folder}/warmup.wav", np.random.default_rng(0).normal(0, 0.1, 480000), 48000)
run("warmup", 0, [f"{folder}/warmup.wav"])
print("ready", flush=True)
sys.stdin.readline()
results = [None] * len(shards)
def run_shard(i): results[i] = run("out", i, shards[i])
threads = [threading.Thread(target=run_shard, args=(i,)) for i in range(len(shards))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([[r.audio_s, r.segments, [d.error_type for d in r.dead_letters]] for r in results]), flush=True)
"""


def resident_mb(pid):
    """Sum the private memory of a process and its children, which are its decoders."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        total += sum(resident_mb(child) for child in task.read_text().split())
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return total + (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20


def run_worker(folder, shards, segments="fixed"):
    """Run shards in parallel in a new worker; return the result of each, and by how many MB its memory grew."""
    command = [sys.executable, "-c", WORKER, json.dumps([str(folder), shards, segments])]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout.readline() == "ready\n"
        start = peak = resident_mb(worker.pid)
        worker.stdin.write("go\n")
        worker.stdin.flush()
        while worker.poll() is None:
            try:
                peak = max(peak, resident_mb(worker.pid))
            except (FileNotFoundError, ProcessLookupError, IndexError):
                continue  # a decoder ended meanwhile
            time.sleep(0.05)
        assert worker.returncode == 0
        return json.loads(worker.stdout.read()), peak - start
    finally:
        worker.kill()
        worker.communicate()


def repeat_file(folder, path, times):
    """Write a file that repeats the packets of another, copied without encoding."""
    out = folder / f"long{path.suffix}"
    command = [find_ffmpeg(), "-v", "error", "-stream_loop", str(times - 1), "-i", str(path), "-c", "copy", str(out)]
    subprocess.run(command, check=True, timeout=60)
    return out


@pytest.mark.timeout(600)
def test_ten_hours_in_one_video_need_bounded_memory(tmp_path):
    short = media_file(tmp_path / "a.m4a", tones(600.0, 16_000, 1), 16_000, "-c:a", "aac")
    path = repeat_file(tmp_path, short, 60)
    ((audio_s, segments, letters),), grown_mb = run_worker(tmp_path, [[str(path)]])
    assert letters == []
    assert audio_s == pytest.approx(36_000, rel=0.01)
    assert segments == pytest.approx(7200, rel=0.01)
    assert grown_mb < LIMIT_MB / 2


@pytest.mark.timeout(600)
def test_two_hours_of_speech_without_times_need_bounded_memory(tmp_path):
    prompts = next(iter(load_speech(CACHE, log=lambda line: None).values()))[:60]
    frames, spans = mix(prompts, 48_000, 1, PLAIN, np.random.default_rng(0))
    short = media_file(tmp_path / "a.webm", frames.T, 48_000, "-c:a", "libopus")
    times = round(3600 / (len(frames) / 48_000))
    paths = [str(repeat_file(tmp_path, short, times))] * 2
    ((audio_s, segments, letters),), grown_mb = run_worker(tmp_path, [paths], "auto")
    assert letters == []
    assert audio_s == pytest.approx(2 * times * len(frames) / 48_000, rel=0.01)
    assert times * len(spans) / 4 < segments / 2 < times * len(spans) * 2
    assert grown_mb < LIMIT_MB / 2


@pytest.mark.timeout(600)
def test_two_shards_of_long_stereo_videos_stay_below_the_limit(tmp_path):
    short = media_file(tmp_path / "a.webm", tones(60.0, 48_000, 2), 48_000, "-c:a", "libopus")
    path = str(repeat_file(tmp_path, short, 12))
    results, grown_mb = run_worker(tmp_path, [[path] * 5, [path] * 5])
    assert [(round(audio_s / 60), letters) for audio_s, _, letters in results] == [(60, []), (60, [])]
    assert grown_mb < LIMIT_MB


@pytest.mark.timeout(600)
def test_a_tar_of_two_gigabytes_is_read_in_place(tmp_path):
    path, size = tmp_path / "big.tar", 2_000_000_000
    member = tarfile.TarInfo("big.wav")
    member.size = size + 44
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", size + 36, b"WAVEfmt ", 16, 1, 1, 96_000, 192_000, 2, 16, b"data", size
    )
    data = member.tobuf() + head
    with path.open("wb") as file:  # sparse: zeros take no space on the disk
        file.write(data)
        file.truncate(-(-(512 + member.size) // 512) * 512 + 1024)
    ((audio_s, _, letters),), grown_mb = run_worker(tmp_path, [[str(path)]])
    assert audio_s == pytest.approx(size / 192_000, rel=0.001)
    assert letters == ["SilentAudio"]
    assert grown_mb < LIMIT_MB / 2
