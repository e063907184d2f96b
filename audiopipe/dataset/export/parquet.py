"""Write Parquet files that Hugging Face's `load_dataset` opens without a script, audio included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.dataset.export.formats import ExportedShard, ExportFormat, SourceShard
from audiopipe.dataset.features import audio_schema

__all__ = ["ParquetFormat"]

ROWS_PER_GROUP = 100  # with audio, a row group should not need more than some 10 MB: readers hold one in memory


def card_head(splits: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the YAML head of the card: a configuration for all languages and for each, with the files of each split.

    Args:
        splits: by language.
    """
    names = sorted({split for items in splits.values() for split in items})
    configs = {"default": ("*", names)} | {language: (language, items) for language, items in splits.items()}
    lines = ["---", "configs:"]
    for config, (folder, items) in configs.items():
        lines += [f"- config_name: {json.dumps(config)}", "  data_files:"]
        for split in items:
            lines += [f"  - split: {split}", f"    path: {json.dumps(f'{folder}/{split}-*.parquet')}"]
    return [*lines, "---"]


class ParquetFormat(ExportFormat):
    """Writes `<language>/<split>-<number>.parquet`: the audio as a struct of bytes and path, and all columns."""

    name = "parquet"

    def write_shard(self, shard: SourceShard, folder: Path) -> Mapping[str, int]:
        """Write one file."""
        name = f"{shard.language}/{shard.split}-{shard.number:06d}.parquet"
        (folder / shard.language).mkdir()
        schema = self.schema()
        # The audio is compressed already.
        compression = dict.fromkeys(_leaves(schema), "zstd") | {"audio.bytes": "none"}
        rows: list[dict[str, Any]] = []
        count = 0
        with pq.ParquetWriter(folder / name, schema, compression=compression, use_dictionary=self._texts()) as file:
            for segment in self.segments(shard):
                audio = {"bytes": segment.read_bytes(), "path": segment.key + self.suffix}
                rows.append({"audio": audio, **self.values(segment)})
                count += 1
                if len(rows) == ROWS_PER_GROUP:
                    file.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
            if rows:
                file.write_table(pa.Table.from_pylist(rows, schema))
        return {name: count}

    def schema(self) -> pa.Schema:
        """Return the schema of all files."""
        fields = self.dataset.view_schema
        return audio_schema(pa.schema([fields.field(name) for name in self.columns]), self.sample_rate)

    def _texts(self) -> list[str]:
        return [name for name in self.columns if pa.types.is_string(self.dataset.view_schema.field(name).type)]

    def describe(self, shards: Sequence[ExportedShard]) -> Mapping[str, bytes]:
        """Return the card."""
        groups: dict[str, dict[str, list[ExportedShard]]] = {}
        for shard in shards:
            groups.setdefault(shard.language, {}).setdefault(shard.split, []).append(shard)
        rows = [
            f"| {language} | {split} | {sum(file['samples'] for item in items for file in item.files)} "
            f"| {sum(item.seconds for item in items) / 3600:.2f} |"
            for language, splits in sorted(groups.items())
            for split, items in sorted(splits.items())
        ]
        splits = {language: sorted(items) for language, items in sorted(groups.items())}
        lines = [
            *card_head(splits),
            "",
            "# Speech dataset",
            "",
            f"Exported by audiopipe from run `{self.dataset.run.run_id}`: audio and text of every segment, its metrics",
            "and its source, in Parquet files.",
            "",
            "| language | split | segments | hours |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            "```python",
            "import os, datasets",
            "folder = os.getcwd()  # of this file; or the name of the dataset on the hub",
            f'dataset = datasets.load_dataset(folder, "{next(iter(splits), "default")}")  # without a language: all',
            'dataset = dataset.cast_column("audio", datasets.Audio(decode=False))  # else torchcodec decodes',
            "```",
            "",
        ]
        return {"README.md": "\n".join(lines).encode()}


def _leaves(schema: pa.Schema) -> list[str]:
    """List the columns of a schema as Parquet names them."""
    names = []
    for field in schema:
        if pa.types.is_list(field.type):
            names.append(f"{field.name}.list.element")
        elif pa.types.is_struct(field.type):
            names += [f"{field.name}.{child.name}" for child in field.type]
        else:
            names.append(field.name)
    return names
