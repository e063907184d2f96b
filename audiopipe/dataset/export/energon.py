"""Index the tars of a dataset for Megatron-Energon, where they are.

.nv-meta/dataset.yaml          the class that reads samples
.nv-meta/split.yaml            the tars of each split
.nv-meta/.info.json, .info.yaml    the number of samples of each tar, for version 7 and for older ones
<language>/audio_000000.tar.idx    the offset of each sample, and of the end, as unsigned 64-bit numbers
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiopipe.dataset.export.formats import ExportedShard, ExportFormat, SourceShard
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.schema import object_names
from audiopipe.dataset.virtual import is_virtual
from audiopipe.errors import ConfigError, VerifyError

__all__ = ["EnergonFormat"]

FOLDER = ".nv-meta"
# Dicts of the members of a sample, which a task encoder makes its samples of.
DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
# Energon's names of splits.
SPLITS = {"train": "train", "validation": "val", "test": "test"}
BLOCK = tarfile.BLOCKSIZE


class EnergonFormat(ExportFormat):
    """Writes an index next to each tar, and the description of the dataset in `.nv-meta`. No audio is copied."""

    name = "energon"
    in_place = True

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        if is_virtual(dataset.run):
            raise ConfigError(
                "energon reads whole tars, and a virtual selection has none: select without virtual, or export another "
                "format"
            )

    def write_shard(self, shard: SourceShard, folder: Path) -> Mapping[str, int]:
        """Write the offsets of the samples of a tar."""
        tar = object_names(shard.language, shard.number)["audio"]
        table = self.dataset.select_shards([shard.name]).kept_by_shard(
            ["language", "shard", "tar_offset", "audio_bytes"]
        )
        offsets = table[shard.name]["tar_offset"].to_numpy()
        end = self._end_of(tar, int(offsets[-1]), table[shard.name]["audio_bytes"][-1].as_py())
        (folder / shard.language).mkdir()
        (folder / f"{tar}.idx").write_bytes(np.append(offsets - BLOCK, end).astype("<u8").tobytes())
        return {f"{tar}.idx": shard.count}

    def _end_of(self, tar: str, offset: int, size: int) -> int:
        """Return the end of the last sample: of the JSON that follows its audio."""
        start = offset + _padded(size)
        header = self.dataset.store.read_range(tar, start, BLOCK)
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except tarfile.HeaderError as error:
            raise VerifyError(f"{tar} is damaged: {error}; `audiopipe verify` checks all tars") from error
        return start + BLOCK + _padded(member.size)

    def describe(self, shards: Sequence[ExportedShard]) -> Mapping[str, bytes]:
        """Return the files of `.nv-meta`."""
        splits: dict[str, list[str]] = {name: [] for name in SPLITS.values()}
        counts: dict[str, int] = {}
        for shard in shards:
            for file in shard.files:
                tar = str(file["name"]).removesuffix(".idx")
                splits.setdefault(SPLITS.get(shard.split, shard.split), []).append(tar)
                counts[tar] = int(file["samples"])
        # JSON is YAML as well.
        info = json.dumps({"shard_counts": counts}, indent=1).encode()
        return {
            f"{FOLDER}/dataset.yaml": DATASET.encode(),
            f"{FOLDER}/split.yaml": json.dumps({"split_parts": splits, "exclude": []}, indent=1).encode(),
            f"{FOLDER}/.info.json": info,
            f"{FOLDER}/.info.yaml": info,
        }


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
