"""Read the description of a network: a YAML next to a program of `torch.export`.

    name: language
    program: language.pt2              # relative to this file
    sample_rate: 16000
    inputs: [samples, lengths]         # [B, T] float32, [B] int64
    outputs:                           # in the order of the program's
      - name: spoken_language          # the label with the highest value of [B, N]
        description: language that is spoken
        labels: [de, en, fr]
        probability: spoken_language_probability   # optional second column
      - columns:                       # numbers of [B] or [B, N]
          - {name: utmos, type: float, unit: MOS, description: predicted MOS, minimum: 1, maximum: 5}

Without `lengths` among its inputs, a program gets one segment at a time, as padding would change its values. With
`window_s`, it gets windows of this length, which start every `hop_s`; short segments are padded, or repeated with
`padding: repeat`; values are means over the windows.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from audiopipe.errors import ConfigError
from audiopipe.scorers.scorer import Column

__all__ = ["NetworkDescription", "NetworkFiles", "Output", "network_version", "read_bytes", "read_network"]

NAME, COLUMN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", r"[a-z][a-z0-9_]{0,62}"
MAX_BYTES = 8 << 30


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NumberColumn(_Strict):
    """A number of each row of an output: that at `index`, or the only one; with type `floats`, all of them."""

    name: str = Field(pattern=f"^{COLUMN}$")
    type: Literal["float", "int", "bool", "floats"] = "float"
    unit: str = "1"
    description: str
    minimum: float | None = None
    maximum: float | None = None
    index: int | None = Field(None, ge=0)
    stored: bool = True


class Output(_Strict):
    """The meaning of one output: columns of numbers, or a label; neither for an output that is not used."""

    columns: tuple[NumberColumn, ...] = ()
    name: str | None = Field(None, pattern=f"^{COLUMN}$")
    description: str = ""
    labels: tuple[str, ...] = ()
    probability: str | None = Field(None, pattern=f"^{COLUMN}$")
    values: Literal["logits", "probabilities"] = "logits"

    @model_validator(mode="after")
    def _check(self) -> Output:
        if bool(self.labels) != (self.name is not None):
            raise ValueError("an output with labels needs a name, and one with a name needs labels")
        if self.labels and self.columns:
            raise ValueError("an output has columns or labels, not both")
        return self

    def to_columns(self) -> Iterator[Column]:
        """Yield the columns that this output gives."""
        for item in self.columns:
            yield Column(item.name, item.type, item.unit, item.description, item.minimum, item.maximum, item.stored)
        if self.name is not None:
            yield Column(self.name, "string", "", self.description)
            if self.probability is not None:
                yield Column(self.probability, "float", "1", f"probability of {self.name}", 0.0, 1.0)


class NetworkDescription(_Strict):
    """The content of the YAML file."""

    name: str = Field(pattern=f"^{NAME}$")
    program: str
    sample_rate: int = Field(ge=8_000, le=192_000)
    channels: int = Field(1, ge=1, le=8)
    layout: Literal["time", "channel_time"] = "time"  # [B, T], or [B, C, T]
    inputs: tuple[Literal["samples", "lengths"], ...] = ("samples",)
    outputs: tuple[Output, ...] = Field(min_length=1)
    window_s: float | None = Field(None, gt=0, le=120)
    hop_s: float | None = Field(None, gt=0)
    padding: Literal["zeros", "repeat"] = "zeros"
    min_s: float = Field(0.0, ge=0, le=120)
    max_batch: int = Field(32, ge=1, le=4096)
    fixed_batch: bool = False

    @model_validator(mode="after")
    def _check(self) -> NetworkDescription:
        if "samples" not in self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError("inputs must be samples, or samples and lengths, each once")
        if self.layout == "time" and self.channels > 1:
            raise ValueError("layout must be channel_time with several channels")
        if self.hop_s is not None and self.window_s is None:
            raise ValueError("hop_s needs window_s")
        if self.fixed_batch and self.window_s is None and "lengths" not in self.inputs:
            raise ValueError("fixed_batch needs window_s or the input lengths")
        return self


@dataclass(frozen=True)
class NetworkFiles:
    """The description and the address of the program, with the digest of both."""

    description: NetworkDescription
    program: str
    version: str


def _stamp(address: str) -> tuple[float, ...]:
    """Return what changes when a local file does; remote files are read once by a process."""
    path = Path(address)
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else ()


def read_network(address: str) -> NetworkFiles:
    """Read and check the description of a network.

    Raises:
        ConfigError: a file is missing, or the YAML is not valid.
    """
    text = read_bytes(address)
    try:
        description = NetworkDescription.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{address} is not valid YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{address} does not describe a network: {problems}") from None
    program = _resolve(address, description.program)
    return NetworkFiles(description, program, network_version(text, _program_digest(program, *_stamp(program))))


@functools.lru_cache(maxsize=64)
def _program_digest(program: str, *stamp: float) -> bytes:
    return hashlib.sha256(read_bytes(program)).digest()


def _resolve(address: str, program: str) -> str:
    """Return the address of the program, which is relative to the YAML file."""
    if "://" in program or program.startswith("/"):
        return program
    return posixpath.join(posixpath.dirname(address), program)


def read_bytes(address: str) -> bytes:
    """Read a file at a path or URL; raise ConfigError if that fails."""
    try:
        with fsspec.open(address, "rb") as file:
            data: bytes = file.read(MAX_BYTES)
            return data
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{address} cannot be read: {type(error).__name__}: {error}") from None


def network_version(description: bytes, program_digest: bytes) -> str:
    """Return a digest of the YAML file and of the program's SHA-256."""
    return hashlib.sha256(hashlib.sha256(description).digest() + program_digest).hexdigest()[:12]
