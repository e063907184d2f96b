"""Scorers for tests: one that measures what it is given, and others that do something wrong."""

import numpy as np
import torch

from audiopipe.scorers.scorer import Column, Scorer


class Probe(Scorer):
    """Columns of all types; what they say can be computed again from the dataset's audio."""

    name = "probe"
    version = "1"
    sample_rate = 8_000
    columns = (
        Column("probe_rms", "float", "1", "root mean square at 8 kHz", 0.0, 1.0),
        Column("probe_samples", "int", "1", "number of samples at 8 kHz"),
        Column("probe_loud", "bool", "", "whether the root mean square exceeds 0.01"),
        Column("probe_text", "string", "", "the text in capitals"),
        Column("probe_ends", "floats", "1", "mean of the first and second half"),
        Column("probe_secret", "floats", "1", "the samples' sum, for the video", stored=False),
        Column("probe_rank", "int", "1", "rank of the segment in its video by loudness, from 0"),
    )

    def load(self, device):
        self.loads = getattr(self, "loads", 0) + 1

    def score(self, batch):
        assert self.loads == 1
        assert batch.samples.dtype == torch.float32
        assert batch.sample_rate == 8_000
        masks = torch.arange(batch.samples.shape[-1]) < torch.tensor(batch.lengths)[:, None]
        assert not batch.samples[:, 0][~masks].any()
        signals = [samples[0, :length] for samples, length in zip(batch.samples, batch.lengths, strict=True)]
        rms = torch.stack([signal.square().mean().sqrt() for signal in signals])
        return {
            "probe_rms": rms,
            "probe_samples": np.array(batch.lengths),
            "probe_loud": rms > 0.01,
            "probe_text": [info.text.upper() if info.text else None for info in batch.segments],
            "probe_ends": [[float(half.mean()) for half in signal.chunk(2)] for signal in signals],
            "probe_secret": [[float(signal.sum())] for signal in signals],
            "probe_rank": [None] * len(signals),
        }

    def finish_video(self, rows):
        assert all(len(secret) == 1 for secret in rows["probe_secret"])
        order = np.argsort(np.argsort(rows["probe_rms"]))
        return {"probe_rank": order, "speaker": [f"s{number % 2}" for number in order]}


class Simple(Scorer):
    """A scorer of one column, which other classes make wrong."""

    name = "simple"
    version = "1"
    columns = (Column("simple", "float", "1", "a number"),)

    def score(self, batch):
        return {"simple": self.values(len(batch.segments))}

    def values(self, count):
        return [0.5] * count


class Raising(Simple):
    name = "raising"

    def values(self, count):
        raise ValueError("no such thing")


class Short(Simple):
    name = "short"

    def values(self, count):
        return [0.5] * (count - 1)


class Texts(Simple):
    name = "texts"

    def values(self, count):
        return ["many"] * count


class Unknown(Simple):
    name = "unknown"

    def score(self, batch):
        return {"simple": [0.0] * len(batch.segments), "other": [0.0] * len(batch.segments)}


class Missing(Simple):
    name = "missing"

    def score(self, batch):
        return {}


class Greedy(Simple):
    """Runs out of memory above two segments."""

    name = "greedy"
    limit = 2

    def values(self, count):
        if count > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [float(count)] * count


class Hungry(Greedy):
    name = "hungry"
    limit = 0


class Broken(Simple):
    name = "broken"

    def load(self, device):
        raise KeyError("weights")


ALL = {
    scorer.name: f"probe_scorers:{scorer.__name__}"
    for scorer in (Probe, Simple, Raising, Short, Texts, Unknown, Missing, Greedy, Hungry, Broken)
}
