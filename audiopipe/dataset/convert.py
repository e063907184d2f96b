"""Turn a dataset into the objects of other libraries: cuts of Lhotse, a dataset of Hugging Face."""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import soundfile as sf

from audiopipe.dataset.features import audio_schema
from audiopipe.dataset.segment import Segment
from audiopipe.extras import require_extra
from audiopipe.media.encode import SUFFIXES

if TYPE_CHECKING:
    import datasets
    from lhotse import CutSet, MonoCut

    from audiopipe.dataset.reader import Dataset

__all__ = ["to_huggingface", "to_lhotse"]

ROWS_PER_BATCH = 100


class _Cuts:
    """The kept segments as Lhotse's cuts, read from the dataset in each iteration."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[MonoCut]:
        # All segments for each reader: Lhotse's samplers split them among ranks and workers.
        for segment in self.dataset.reopen().iterate(rank=0, world_size=1, worker=(0, 1)):
            yield _make_cut(segment)


def to_lhotse(dataset: Dataset) -> CutSet:
    """Return the kept segments as a lazy CutSet, whose recordings hold the encoded audio in memory."""
    with require_extra("loaders", "Dataset.to_lhotse"):
        from lhotse import CutSet  # noqa: PLC0415 - an optional package
    return CutSet(_Cuts(dataset))


def _make_cut(segment: Segment) -> MonoCut:
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment  # noqa: PLC0415 - an optional package

    data = segment.read_bytes()
    info = sf.info(io.BytesIO(data))
    duration = info.frames / info.samplerate
    recording = Recording(
        id=segment.key,
        sources=[AudioSource("memory", [0], data)],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=duration,
        channel_ids=[0],
    )
    supervision = SupervisionSegment(
        id=segment.key,
        recording_id=segment.key,
        start=0.0,
        duration=duration,
        channel=0,
        text=segment.text,
        language=segment.language,
        speaker=segment.speaker,
    )
    custom = {"video_id": segment.video_id, "start_s": segment.start_s, "end_s": segment.end_s, **segment.metrics}
    return MonoCut(segment.key, 0.0, duration, 0, supervisions=[supervision], recording=recording, custom=custom)


def to_huggingface(
    dataset: Dataset, columns: Sequence[str], cache_dir: str | os.PathLike[str] | None
) -> datasets.Dataset:
    """Return the kept segments as a dataset of Hugging Face, memory-mapped from Arrow files that are written once."""
    with require_extra("loaders", "Dataset.to_huggingface"):
        import datasets  # noqa: PLC0415 - an optional package
    folder = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "audiopipe" / _digest(dataset, columns)
    folder.mkdir(parents=True, exist_ok=True)
    schema = audio_schema(
        pa.schema([dataset.view_schema.field(name) for name in columns]), int(dataset.run.config["sample_rate"] or 0)
    )
    files = [folder / f"{shard}.arrow" for shard in dataset.count_by_shard()] or [folder / "empty.arrow"]
    for file in files:
        if not file.exists():
            _write_arrow(dataset, file, schema)
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def _digest(dataset: Dataset, columns: Sequence[str]) -> str:
    """Return a digest of all that the files depend on."""
    shards = [item.sha256 for shard in sorted(dataset.commits) for item in dataset.commits[shard].objects]
    added = [(item.record.id, item.record.digest, sorted(item.shards)) for item in dataset.annotations]
    body = [dataset.run.run_id, dataset.conditions, list(columns), shards, added]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:16]


def _write_arrow(dataset: Dataset, file: Path, schema: pa.Schema) -> None:
    """Write the segments of the shard that a file is named after; the file appears when it is complete."""
    draft = file.with_name(f"{uuid.uuid4().hex}.draft")
    suffix = SUFFIXES[dataset.run.audio_format]
    shards = [file.stem] if file.stem in dataset.commits else []
    stream = dataset.select_shards(shards).iterate(rank=0, world_size=1, worker=(0, 1))
    try:
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            rows: list[Mapping[str, Any]] = []
            for segment in stream:
                audio = {"bytes": segment.read_bytes(), "path": segment.key + suffix}
                rows.append({"audio": audio, **{name: segment.row[name] for name in schema.names[1:]}})
                if len(rows) == ROWS_PER_BATCH:
                    writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
                    rows = []
            if rows:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
