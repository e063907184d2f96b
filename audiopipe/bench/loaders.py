"""Time the readers of a finished dataset: `audiopipe.Dataset` next to webdataset, both decoding all audio."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import soundfile as sf
import torch
from torch.utils.data import DataLoader

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.schema import is_audio_tar
from audiopipe.dataset.segment import Segment
from audiopipe.errors import ConfigError
from audiopipe.extras import require_extra

__all__ = ["LoaderRate", "run_benchmark"]

SAMPLES = 1_000  # samples of the mixing buffer of webdataset, as many as Dataset.iterate mixes


@dataclass(frozen=True, slots=True)
class LoaderRate:
    """The rate of a reader: the fastest of the rounds."""

    name: str
    segments: int
    seconds: float

    @property
    def segments_per_s(self) -> float:
        """Segments per second."""
        return self.segments / self.seconds


def run_benchmark(url: str, workers: int, rounds: int, repeats: int = 1) -> dict[str, LoaderRate]:
    """Read a local dataset through a DataLoader with each reader in turn, `rounds` times; return the best rates.

    Every reader decodes the audio with soundfile to float32 and reads the text.

    Args:
        repeats: epochs in one round, for a small dataset.

    Raises:
        ConfigError: the dataset is not in a local folder, or has no audio.
    """
    dataset = Dataset(url)
    folder = dataset.store.local_folder
    tars = [item.name for commit in dataset.commits.values() for item in commit.objects if is_audio_tar(item.name)]
    if folder is None or not tars:
        raise ConfigError(f"{url} must be a local folder with a dataset that has audio")
    paths = [str(folder / tar) for tar in tars]
    suffix = dataset.run.audio_format
    readers: dict[str, Callable[[bool], Any]] = {
        "audiopipe": lambda shuffle: dataset.iterate(shuffle, columns=["text"]).map(_decode_segment),
        "webdataset": lambda shuffle: _open_webdataset(paths, suffix, shuffle),
    }
    best: dict[str, LoaderRate] = {}
    for _ in range(rounds):
        for shuffle in (False, True):
            for name, open_reader in readers.items():
                label = f"{name}, {'shuffled' if shuffle else 'in order'}"
                rate = _measure(label, open_reader(shuffle), workers, repeats)
                if label not in best or rate.segments_per_s > best[label].segments_per_s:
                    best[label] = rate
    return best


def _open_webdataset(tars: list[str], suffix: str, shuffle: bool) -> Any:
    with require_extra("bench", "the benchmark of readers"):
        import webdataset as wds  # noqa: PLC0415 - an optional package

    reader = wds.WebDataset(
        tars, shardshuffle=len(tars) if shuffle else False, nodesplitter=wds.split_by_node, seed=0, empty_check=False
    )
    mixed = reader.shuffle(SAMPLES) if shuffle else reader
    return mixed.map(_SampleDecoder(suffix))


@dataclass(frozen=True)
class _SampleDecoder:
    """Decodes a sample of webdataset; picklable, for the workers of a DataLoader."""

    suffix: str

    def __call__(self, sample: dict[str, bytes]) -> tuple[torch.Tensor, str]:
        samples, _ = sf.read(io.BytesIO(sample[self.suffix]), dtype="float32")
        return torch.from_numpy(samples), json.loads(sample["json"])["text"]


def _decode_segment(segment: Segment) -> tuple[torch.Tensor, str]:
    return torch.from_numpy(segment.audio), segment.text or ""


def _measure(name: str, reader: Any, workers: int, repeats: int) -> LoaderRate:
    """Count the segments of some epochs and time them, from the first batch on: without the start of the workers."""
    count, seconds = 0, 0.0
    for _ in range(repeats):
        batches = iter(DataLoader(reader, batch_size=16, num_workers=workers, collate_fn=list))
        next(batches)
        started = time.perf_counter()
        count += sum(map(len, batches))
        seconds += time.perf_counter() - started
    return LoaderRate(name, count, seconds)
