"""Score with a network that a YAML file describes: a program of `torch.export`, and its columns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audiopipe.errors import ConfigError
from audiopipe.scorers.exported_program import load_program
from audiopipe.scorers.network_file import Output, network_version, read_bytes, read_network
from audiopipe.scorers.scorer import Scorer, ScorerBatch, Values

if TYPE_CHECKING:
    import torch

__all__ = ["Network"]


class Network(Scorer):
    """A network that a YAML file describes; its version is the digest of this file and of the program.

    Args:
        address: path or URL of the YAML file.

    Raises:
        ConfigError: a file is missing, or the YAML is not valid.
    """

    def __init__(self, address: str) -> None:
        files = read_network(address)
        self._description, self._program = files.description, files.program
        self.name, self.version = files.description.name, files.version
        self.columns = tuple(column for output in files.description.outputs for column in output.to_columns())
        self.sample_rate, self.channels = files.description.sample_rate, files.description.channels
        self._address = address
        self._run: Callable[..., Any] | None = None

    def load(self, device: torch.device) -> None:
        """Load the program.

        Raises:
            ConfigError: it is damaged, could run code of others, or has changed since the run was started.
        """
        data = read_bytes(self._program)
        if network_version(read_bytes(self._address), hashlib.sha256(data).digest()) != self.version:
            raise ConfigError(f"{self._program} has changed since the run was started")
        try:
            self._run = load_program(data, device)
        except ConfigError as error:
            raise ConfigError(f"{self._program}: {error}") from None

    def score(self, batch: ScorerBatch) -> Mapping[str, Values]:
        """Run the program on windows or on whole segments, and take its outputs to columns."""
        assert batch.samples is not None
        owners, pieces, lengths = self._cut(batch.samples, batch.lengths)
        rows: list[Sequence[torch.Tensor]] = []
        together = self._description.window_s is not None or "lengths" in self._description.inputs
        step = self._description.max_batch if together else 1
        for start in range(0, len(pieces), step):
            rows += self._run_rows(pieces[start : start + step], lengths[start : start + step])
        return self._collect(owners, rows, len(batch.lengths))

    def _cut(self, samples: torch.Tensor, lengths: Sequence[int]) -> tuple[list[int], list[torch.Tensor], list[int]]:
        """Return for each piece to run: the segment it is of, its samples [C, T], and the number of real ones."""
        description = self._description
        window = description.window_s and round(description.window_s * description.sample_rate)
        hop = round((description.hop_s or description.window_s or 0) * description.sample_rate)
        shortest = window or max(1, round(description.min_s * description.sample_rate))
        owners, pieces, sizes = [], [], []
        for owner, length in enumerate(lengths):
            segment = _extend(samples[owner, :, :length], shortest, description.padding)
            starts = range(0, segment.shape[-1] - window + 1, hop) if window else [0]
            for start in starts:
                owners.append(owner)
                pieces.append(segment[:, start : start + window] if window else segment)
                sizes.append(min(window, length - start) if window else length)
        return owners, pieces, sizes

    def _run_rows(self, pieces: Sequence[torch.Tensor], lengths: Sequence[int]) -> list[list[torch.Tensor]]:
        """Run the program on pieces of [C, T]; return for each piece the row [N] of each output."""
        import torch  # noqa: PLC0415

        assert self._run is not None, "load comes first"
        description, count = self._description, len(pieces)
        size = description.max_batch if description.fixed_batch else count
        longest = max(piece.shape[-1] for piece in pieces)
        samples = pieces[0].new_zeros(size, description.channels, longest)
        for row, piece in zip(samples, pieces, strict=False):
            row[:, : piece.shape[-1]] = piece
        arguments = {
            "samples": samples if description.layout == "channel_time" else samples[:, 0],
            "lengths": torch.tensor([*lengths, *[longest] * (size - count)], device=samples.device),
        }
        outputs = self._run(*(arguments[name] for name in description.inputs))
        outputs = list(outputs.values()) if isinstance(outputs, Mapping) else outputs
        outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        if len(outputs) != len(description.outputs):
            raise ValueError(f"the program has {len(outputs)} outputs, and its YAML {len(description.outputs)}")
        if problem := [tuple(output.shape) for output in outputs if output.shape[:1] != (size,)]:
            raise ValueError(f"an output has the shape {problem[0]}, not [{size}, ...]")
        return [
            list(row)
            for row in zip(*(output[:count].reshape(count, -1).float().cpu() for output in outputs), strict=True)
        ]

    def _collect(self, owners: list[int], rows: list[Sequence[torch.Tensor]], count: int) -> dict[str, list[Any]]:
        """Average the pieces of each segment, and convert the outputs to columns."""
        import torch  # noqa: PLC0415

        values: dict[str, list[Any]] = {column.name: [] for column in self.columns}
        pieces: list[list[Sequence[torch.Tensor]]] = [[] for _ in range(count)]
        for owner, outputs in zip(owners, rows, strict=True):
            pieces[owner].append(outputs)
        for segment in pieces:
            for output, parts in zip(self._description.outputs, zip(*segment, strict=True), strict=True):
                row = torch.stack(parts)
                if output.labels:
                    row = row.softmax(-1) if output.values == "logits" else row
                for name, value in _to_values(output, row.mean(0)):
                    values[name].append(value)
        return values


def _to_values(output: Output, row: torch.Tensor) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each column of one output's row [N]."""
    if output.name is not None:
        if len(row) != len(output.labels):
            raise ValueError(f"the output of {output.name} has {len(row)} values, and {len(output.labels)} labels")
        best = int(row.argmax())
        known = bool(row.isfinite().all())
        yield output.name, output.labels[best] if known else None
        if output.probability is not None:
            yield output.probability, float(row[best]) if known else None
    for column in output.columns:
        if column.type == "floats":
            yield column.name, row.tolist() if bool(row.isfinite().all()) else None
            continue
        if column.index is None and len(row) != 1:
            raise ValueError(f"the output of {column.name} has {len(row)} values: its column needs an index")
        value = float(row[column.index or 0])
        if not math.isfinite(value):
            yield column.name, None
        else:
            yield column.name, {"float": value, "int": round(value), "bool": value > 0.5}[column.type]


def _extend(segment: torch.Tensor, length: int, padding: str) -> torch.Tensor:
    """Return a segment [C, T] of at least `length` samples."""
    import torch  # noqa: PLC0415

    if segment.shape[-1] >= length:
        return segment
    if padding == "repeat":
        return segment.repeat(1, -(-length // segment.shape[-1]))[:, :length]
    return torch.nn.functional.pad(segment, (0, length - segment.shape[-1]))
