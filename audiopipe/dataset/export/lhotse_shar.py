"""Write Lhotse Shar: cuts in JSON lines and their recordings in tars, which `CutSet.from_shar` opens."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile as sf

from audiopipe.dataset.export.formats import ExportedShard, ExportFormat, SourceShard
from audiopipe.dataset.segment import Segment

__all__ = ["LhotseSharFormat"]

TAR_BUFFER_BYTES = 1 << 18


class LhotseSharFormat(ExportFormat):
    """Writes `<language>/<split>/cuts.<number>.jsonl.gz` and `recording.<number>.tar` for each shard."""

    name = "lhotse-shar"

    def write_shard(self, shard: SourceShard, folder: Path) -> Mapping[str, int]:
        """Write the cuts and the recordings, which are in the same order."""
        group = f"{shard.language}/{shard.split}"
        cuts, recordings = f"{group}/cuts.{shard.number:06d}.jsonl.gz", f"{group}/recording.{shard.number:06d}.tar"
        (folder / group).mkdir(parents=True)
        count = 0
        with (
            (folder / cuts).open("wb") as file,
            gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as lines,
            (folder / recordings).open("wb", buffering=TAR_BUFFER_BYTES) as tar_file,
            tarfile.open(fileobj=tar_file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for segment in self.segments(shard):
                recording = self._recording(segment)
                lines.write(json.dumps(self._cut(segment, recording), ensure_ascii=False).encode() + b"\n")
                _add(tar, segment.key + self.suffix, segment.read_bytes())
                _add(tar, f"{segment.key}.json", json.dumps(recording).encode() + b"\n")
                count += 1
        return {cuts: count, recordings: count}

    def _recording(self, segment: Segment) -> dict[str, Any]:
        """Describe the audio as Lhotse does, with a placeholder for its bytes."""
        info = sf.info(io.BytesIO(segment.read_bytes()))
        return {
            "id": segment.key,
            "sources": [{"type": "shar", "channels": [0], "source": ""}],
            "sampling_rate": info.samplerate,
            "num_samples": info.frames,
            "duration": info.frames / info.samplerate,
            "channel_ids": [0],
        }

    def _cut(self, segment: Segment, recording: Mapping[str, Any]) -> dict[str, Any]:
        supervision = {
            "id": segment.key,
            "recording_id": segment.key,
            "start": 0.0,
            "duration": recording["duration"],
            "channel": 0,
            "text": segment.text,
            "language": segment.language,
            "speaker": segment.speaker,
        }
        known = ("key", "text", "language", "speaker", "duration_s")
        return {
            "id": segment.key,
            "start": 0.0,
            "duration": recording["duration"],
            "channel": 0,
            "supervisions": [{name: value for name, value in supervision.items() if value is not None}],
            "recording": recording,
            "custom": {name: value for name, value in self.values(segment).items() if name not in known},
            "type": "MonoCut",
        }

    def describe(self, shards: Sequence[ExportedShard]) -> Mapping[str, bytes]:
        """Return `fields.json`: all files in the form of `CutSet.from_shar(fields=...)`, relative to the export."""
        names = [str(file["name"]) for shard in shards for file in shard.files]
        fields = {
            "cuts": [name for name in names if name.endswith(".jsonl.gz")],
            "recording": [name for name in names if name.endswith(".tar")],
        }
        return {"fields.json": json.dumps(fields, indent=1).encode()}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
