"""Process shards of videos of many kinds, and read what comes out."""

import json

from factories import config, media_file, tar_file, tones, wav_video

from audiopipe.pipeline import assemble
from audiopipe.pipeline import shard as shard_module
from audiopipe.pipeline import video as video_module
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Video

NO_RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}

# Where each stage can be made to fail: the module that calls it, and its name there.
STAGES = {
    "fetch": (video_module, "fetch"),
    "decode": (video_module, "decode"),
    "score": (shard_module, "score"),
    "encode": (assemble, "encode"),
    "upload": (shard_module, "upload"),
}


def run(folder, shard, name="out", **parameters):
    fixed = {"output": str(folder / name), "scratch": str(folder / "scratch"), "decode_timeout_s": 5.0}
    return process_shard(shard, config(**fixed | parameters), "run")


def objects(folder, name="out"):
    """Read the objects whose bytes are the same in every run."""
    root = folder / name
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.relative_to(root).parts[0].startswith("_")
    }


def summary_fields(result):
    """Return the fields of a shard's result that do not depend on timing or attempt."""
    return result.segments, result.kept_s, result.audio_s, result.drops, result.dead_letters


def mixed(folder):
    """Seven small videos of several rates, lengths and kinds of times, among them two bad ones."""
    spans = [{"start": i * 0.7, "end": i * 0.7 + 0.5 + 0.1 * (i % 3), "text": f"w{i}"} for i in range(12)]
    listed = json.dumps({"segments": spans}).encode()
    opus = media_file(folder / "o.webm", tones(9.0, 48_000, 2), 48_000, "-c:a", "libopus").read_bytes()
    garbage = tar_file(folder / "garbage.tar", {"g.mp3": b"no sound at all" * 99})
    return [
        wav_video(folder, "long", 40.0),
        wav_video(folder, "listed", 9.0, json=listed),
        Video("garbage", "en", str(garbage)),
        Video("opus", "en", str(tar_file(folder / "opus.tar", {"o.webm": opus, "o.json": listed}))),
        wav_video(folder, "short", 1.0),
        Video("missing", "en", str(folder / "missing.tar")),
        wav_video(folder, "stereo", 6.0, rate=44_100, channels=2),
    ]
