"""Write MosaicML's MDS, version 2, which `streaming.StreamingDataset` opens.

A shard is the number of samples, the offset of each and of the end, the columns as JSON, and the samples. A sample is
the sizes of its values of variable size, and the values, in the order of their columns' names.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiopipe.dataset.export.formats import ExportedShard, ExportFormat, SourceShard
from audiopipe.dataset.segment import Segment

__all__ = ["MdsFormat"]

SIZE_LIMIT = 1 << 26  # bytes of a file: the library downloads and caches whole files
# MDS has no null: a missing text is empty. `metadata` has all columns, with null.
ENCODINGS: Mapping[str, tuple[str, int | None]] = {
    "audio": ("bytes", None),
    "duration_s": ("float64", 8),
    "key": ("str", None),
    "language": ("str", None),
    "metadata": ("json", None),
    "speaker": ("str", None),
    "text": ("str", None),
}
CONFIG: dict[str, Any] = {
    "version": 2,
    "format": "mds",
    "compression": None,
    "hashes": [],
    "size_limit": SIZE_LIMIT,
    "column_names": list(ENCODINGS),
    "column_encodings": [encoding for encoding, _ in ENCODINGS.values()],
    "column_sizes": [size for _, size in ENCODINGS.values()],
}
HEADER = json.dumps(CONFIG, sort_keys=True).encode()


class MdsFormat(ExportFormat):
    """Writes `<language>/<split>/shard.<number>.<part>.mds`, and `index.json` for each split and for everything."""

    name = "mds"

    def write_shard(self, shard: SourceShard, folder: Path) -> Mapping[str, int]:
        """Write files of at most 64 MB."""
        group = f"{shard.language}/{shard.split}"
        (folder / group).mkdir(parents=True)
        counts: dict[str, int] = {}
        samples: list[bytes] = []
        size = _head_size(0)

        def flush() -> None:
            name = f"{group}/shard.{shard.number:06d}.{len(counts):05d}.mds"
            _write_file(folder / name, samples)
            counts[name] = len(samples)

        for segment in self.segments(shard):
            sample = self._encode(segment)
            if samples and size + 4 + len(sample) > SIZE_LIMIT:
                flush()
                samples, size = [], _head_size(0)
            samples.append(sample)
            size += 4 + len(sample)
        flush()
        return counts

    def _encode(self, segment: Segment) -> bytes:
        values: dict[str, bytes] = {
            "audio": segment.read_bytes(),
            "duration_s": struct.pack("<d", segment.duration_s),
            "key": segment.key.encode(),
            "language": segment.language.encode(),
            "metadata": json.dumps(self.values(segment), ensure_ascii=False).encode(),
            "speaker": (segment.speaker or "").encode(),
            "text": (segment.text or "").encode(),
        }
        sizes = [len(values[name]) for name, (_, size) in ENCODINGS.items() if size is None]
        return np.array(sizes, np.uint32).tobytes() + b"".join(values[name] for name in ENCODINGS)

    def describe(self, shards: Sequence[ExportedShard]) -> Mapping[str, bytes]:
        """Return the indexes."""
        folders: dict[str, list[Mapping[str, Any]]] = {"": []}
        for shard in shards:
            for file in shard.files:
                folder, _, name = str(file["name"]).rpartition("/")
                folders.setdefault(folder, []).append({**file, "name": name})
                folders[""].append(file)
        return {f"{folder}/index.json".lstrip("/"): _index(files) for folder, files in folders.items()}


def _head_size(samples: int) -> int:
    return 4 + 4 * (samples + 1) + len(HEADER)


def _write_file(path: Path, samples: Sequence[bytes]) -> None:
    offsets = np.cumsum([_head_size(len(samples)), *map(len, samples)])
    with path.open("wb") as file:
        file.write(np.uint32(len(samples)).tobytes() + offsets.astype(np.uint32).tobytes() + HEADER)
        file.writelines(samples)


def _index(files: Sequence[Mapping[str, Any]]) -> bytes:
    shards = [
        {
            **CONFIG,
            "raw_data": {"basename": file["name"], "bytes": file["size"], "hashes": {}},
            "samples": file["samples"],
            "zip_data": None,
        }
        for file in files
    ]
    return json.dumps({"shards": shards, "version": 2}, sort_keys=True).encode()
