"""RunConfig: every parameter of a run, in one flat, frozen, validated place.

The notebooks' parameter cells, papermill's `-p`, the command's options and Python callers all end up here, and
nothing below reads a parameter from anywhere else. Secrets are not parameters: stores and databases take them
from the environment.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from audiopipe.errors import ConfigError

__all__ = ["OUTPUT_VERSION", "RunConfig"]

# Raised whenever the same input and parameters would give other bytes: kernels, segmentation, encoders, layout.
OUTPUT_VERSION = 4

LANGUAGE = re.compile(r"(?!reports$)[A-Za-z0-9][A-Za-z0-9_-]{0,34}")  # `reports` is a folder of the output
CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def _output(default: Any, description: str, **limits: Any) -> Any:
    """A field that the bytes of the output depend on: it is part of the digest."""
    return Field(default, description=description, json_schema_extra={"digest": True}, **limits)


def _how(default: Any, description: str, **limits: Any) -> Any:
    """A field that changes where and how fast the work is done, not what comes out."""
    return Field(default, description=description, **limits)


class RunConfig(BaseModel):
    """The parameters of a run. Build it with `RunConfig.of(**parameters)`, which raises `ConfigError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    # What to read and where to write.
    catalog: str = _how(..., "supabase://TABLE; a Parquet, CSV or JSONL file; a folder or glob of tars or audio")
    output: str = _how(..., "folder or fsspec URL (s3://bucket/prefix) of the dataset; holds one run")
    source_prefix: str | None = _how(None, "put before each r2_tar_key; default: the folder that the catalogue is in")
    language: str = _how("all", "'all', a language, or a comma-separated list")
    language_order: Literal["round_robin", "sequential"] = _how(
        "round_robin", "languages take turns shard by shard, or come one after the other, in the order of the list"
    )
    ledger: str | None = _how(
        None, "the run's progress: a SQLite file, or supabase://; default: _ledger.sqlite in a local output"
    )
    run_id: str | None = _how(None, "name of the run; default: the output's own, or a new UUID")

    # Who takes which videos, and how many make a shard.
    extend: bool = _how(False, "also take the videos that came to the catalogue since the output was planned")
    partition_index: int = _how(0, "the partition that this driver takes", ge=0)
    partition_count: int = _how(1, "number of partitions; the same for all drivers of a run", ge=1, le=65_536)
    shard_videos: int = _output(64, "videos in a shard, at most", ge=1, le=10_000)
    shard_mb: int = _output(1024, "source megabytes in a shard, at most (a larger video is a shard of its own)", ge=1)
    shard_minutes: float = _output(1200.0, "minutes of audio in a shard, at most, where the catalogue knows them", gt=0)

    # Segments.
    segments: Literal["auto", "json", "captions", "voice", "fixed"] = _output(
        "auto",
        "where segment times come from; 'auto' takes JSON, else captions, else voice activity, else fixed windows",
    )
    window_s: float = _output(5.0, "length of a fixed window", ge=0.4, le=60.0)
    min_segment_s: float = _output(0.4, "shorter segments are dropped", ge=0.0)
    max_segment_s: float = _output(30.0, "longer segments are dropped; longer speech is cut at a pause", gt=0, le=120)
    voice_threshold: float = _output(0.5, "probability of speech in 32 ms at which a segment begins", gt=0, lt=1)
    voice_hysteresis: float = _output(0.15, "how far below voice_threshold speech ends", ge=0, lt=1)
    voice_gap_s: float = _output(0.5, "shorter gaps between speech do not end a segment", ge=0.0, le=10.0)
    voice_pad_s: float = _output(0.1, "put before and after the speech of a segment", ge=0.0, le=2.0)
    voice_min_s: float = _output(0.25, "shorter sounds are no speech", ge=0.0, le=10.0)

    # Audio.
    measure_channels: Literal["mean", "source"] = _output(
        "mean", "measure the mean of the channels (what is emitted), or the layout as it is"
    )
    sample_rate: int = _output(16_000, "sample rate of the output in Hz", ge=8_000, le=48_000)
    audio_format: Literal["flac", "wav", "opus", "mp3"] = _output("flac", "codec of the output")
    normalize_lufs: float | None = _output(
        None, "bring each emitted segment to this integrated loudness; None leaves it", ge=-70, le=0
    )
    true_peak_dbtp: float = _output(-1.0, "what normalize_lufs may raise a segment's true peak to, at most", le=0)
    truncated: Literal["reject", "keep"] = _output(
        "reject", "media that ends before its declared duration: a dead letter, or keep what there is"
    )
    max_video_s: float = _output(43_200.0, "longer videos become dead letters", gt=0)
    max_channels: int = _output(8, "media with more channels become dead letters", ge=1, le=64)
    silence_dbfs: float = _output(-70.0, "a video whose sample peak stays below this becomes a dead letter", le=0)

    # Thresholds: a segment outside any of them is dropped with its name; None switches one off.
    min_loudness_lufs: float | None = _output(-50.0, "drop reason 'too_quiet'")
    max_loudness_lufs: float | None = _output(None, "drop reason 'too_loud'")
    max_clipping_ratio: float | None = _output(0.005, "drop reason 'clipped'", ge=0, le=1)
    max_silence_ratio: float | None = _output(0.9, "drop reason 'mostly_silence'", ge=0, le=1)
    min_snr_db: float | None = _output(5.0, "drop reason 'noisy'")
    min_bandwidth_hz: float | None = _output(None, "drop reason 'narrow_band'", ge=0)

    # Re-uploads.
    duplicate_similarity: float | None = _output(
        0.15, "videos that share so much of what is heard are one and its re-uploads; None does not look", gt=0, le=1
    )

    # How the work is done.
    batch_segments: int = _output(128, "segments in a batch, at most", ge=1, le=4096)
    batch_mb: int = _output(64, "megabytes of samples in a batch, at most", ge=1, le=4096)
    batch_queue_mb: int = _output(
        256, "megabytes of samples waiting for their batch to fill, at most, for each shard", ge=1
    )
    memory_mb: int = _how(1024, "megabytes of samples in a worker, for all its shards in flight together", ge=1)
    device: Literal["auto", "cpu", "cuda"] = _how("auto", "where kernels run")
    cluster: str = _how("auto", "cluster profile")
    workers: int | None = _how(None, "number of workers; default: the profile's", ge=1)
    shards_in_flight: int = _how(2, "shards that a worker has under way at once", ge=1, le=16)
    prefetch_videos: int = _how(4, "videos fetched ahead of the decoder", ge=1, le=256)
    prefetch_mb: int = _how(2048, "megabytes of videos fetched ahead of the decoder, at most, on scratch disk", ge=1)
    decoders: int = _how(4, "videos of a shard, at most 4, that are decoded ahead of the scoring", ge=1, le=128)
    encoders: int = _how(2, "encoder threads of a worker's shard", ge=1, le=128)
    decode_timeout_s: float = _how(120.0, "seconds without a sample after which a decoder is given up", gt=0)
    scratch: str | None = _how(None, "local folder for tars under way; default: the system's temporary folder")
    retries: int = _how(3, "times a shard is tried again after a transient error", ge=0, le=100)
    heartbeat_s: float = _how(10.0, "seconds between updates of the ledger", gt=0)

    @classmethod
    def of(cls, **parameters: Any) -> Self:
        """Validate flat parameters; raises `ConfigError` naming each bad field and what is allowed."""
        unknown = [name for name in parameters if name not in cls.model_fields]
        if unknown:
            raise ConfigError("; ".join(_unknown(name, list(cls.model_fields)) for name in unknown))
        try:
            return cls(**parameters)
        except ValidationError as error:
            raise ConfigError("; ".join(_explain(item) for item in error.errors())) from None

    @field_validator("catalog", "output", "source_prefix", "ledger")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        if value is not None and CREDENTIALS.search(value):
            raise ValueError("holds a password; take it out and set it in the environment instead")
        if value is not None and not value.strip():
            raise ValueError("is empty")
        return value

    @field_validator("language")
    @classmethod
    def _language_names(cls, value: str) -> str:
        for name in value.split(","):
            if not LANGUAGE.fullmatch(name.strip()):
                raise ValueError("must be 'all' or names of letters, digits, '-' and '_', separated by commas")
        return ",".join(name.strip() for name in value.split(","))

    @field_validator("run_id")
    @classmethod
    def _run_id_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", value):
            raise ValueError("must be 1 to 64 letters, digits, '-', '_' and '.'")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.partition_index >= self.partition_count:
            raise ValueError(f"partition_index must be below partition_count ({self.partition_count})")
        if self.min_segment_s >= self.max_segment_s:
            raise ValueError(f"min_segment_s must be below max_segment_s ({self.max_segment_s})")
        if self.voice_gap_s < 2 * self.voice_pad_s:
            raise ValueError("voice_gap_s must be at least twice voice_pad_s, so that segments do not overlap")
        if self.window_s > self.max_segment_s:
            raise ValueError(f"window_s must not exceed max_segment_s ({self.max_segment_s})")
        if self.audio_format == "opus" and self.sample_rate not in (8_000, 12_000, 16_000, 24_000, 48_000):
            raise ValueError("sample_rate must be 8000, 12000, 16000, 24000 or 48000 with audio_format 'opus'")
        return self

    @property
    def languages(self) -> frozenset[str] | None:
        """The languages asked for, or None for all."""
        return None if self.language == "all" else frozenset(self.language.split(","))

    @property
    def listed_languages(self) -> list[str] | None:
        """The languages asked for in the order of the list, each once; None for all."""
        return None if self.language == "all" else list(dict.fromkeys(self.language.split(",")))

    def output_fields(self) -> dict[str, Any]:
        """The fields that the bytes of the output depend on."""
        chosen = [name for name, info in type(self).model_fields.items() if info.json_schema_extra]
        return {name: getattr(self, name) for name in chosen}

    @property
    def digest(self) -> str:
        """16 hex digits over the output's fields and the version of the kernels and the layout."""
        body = {"output_version": OUTPUT_VERSION, **self.output_fields()}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}"
    return f"unknown parameter '{name}': {hint}"


def _explain(item: Any) -> str:
    """One pydantic error as a sentence with the field, the value and the rule."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    if item["type"] == "missing":
        return f"parameter '{item['loc'][0]}' is required"
    value = "" if "password" in message else f" {item['input']!r}"
    return f"parameter '{item['loc'][0]}'{value}: {message[0].lower()}{message[1:]}"
