"""The parameters of a run."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from audiopipe.config.checks import CheckedParameters, added_field, output_field, run_field
from audiopipe.scorers.registry import create_scorers
from audiopipe.scorers.scorer import Scorer

if TYPE_CHECKING:
    from audiopipe.conditions import Condition

__all__ = ["OUTPUT_VERSION", "RunConfig"]

# Raise it whenever the same input and parameters give other bytes: kernels, segmentation, encoders, layout.
OUTPUT_VERSION = 7


class RunConfig(CheckedParameters):
    """The parameters of a run. Build it with `RunConfig.of(**parameters)`, which raises `ConfigError`."""

    # Input and output.
    catalog: str = run_field(
        ...,
        "supabase://TABLE; a Parquet, CSV, TSV or JSONL file; a folder or glob of tars or audio files; a manifest of "
        "NeMo or Lhotse; a data folder of Kaldi; `audiopipe inspect` shows what is read of it",
    )
    output: str = run_field(..., "folder or fsspec URL (s3://bucket/prefix) of the dataset; one run per output")
    source_prefix: str | None = run_field(
        None, "prefix of each relative r2_tar_key; default: the folder that contains the catalog"
    )
    columns: str | None = added_field(
        None,
        "columns of the catalog to use, as in youtube_id=path,language=locale,text=sentence,speaker=client_id; also "
        "r2_tar_key, status, size_bytes, duration_s, start_s, end_s; 'status=none' uses none",
    )
    keep_columns: str | None = added_field(
        None, "columns of the catalog to add to each segment, as in channel,title, or new_name=title; or 'all'"
    )
    language_from: str | None = added_field(
        None,
        "'folder' takes the language from the first folder of each path; a language, such as 'en', holds for all "
        "videos; default: the catalog's column, or the first folder that looks like a language",
    )
    language: str = run_field("all", "'all', one language, or a comma-separated list")
    language_order: Literal["round_robin", "sequential"] = run_field(
        "round_robin",
        "round_robin alternates languages shard by shard; sequential follows the list, one after the other",
    )
    ledger: str | None = run_field(
        None, "database of the run's progress: a SQLite file, or supabase://; default: _ledger.sqlite in a local output"
    )
    run_id: str | None = run_field(None, "name of the run; default: the name that the output has, or a new UUID")

    # Partitions and shards.
    extend: bool = run_field(False, "also process videos that were added to the catalog after the output was planned")
    partition_index: int = run_field(0, "partition that this driver processes, counted from 0", ge=0)
    partition_count: int = run_field(
        1, "number of partitions; must be the same for all drivers of a run", ge=1, le=65_536
    )
    shard_videos: int = output_field(64, "maximum number of videos in a shard", ge=1, le=10_000)
    shard_mb: int = output_field(
        1024, "maximum megabytes of source files in a shard; a larger video forms a shard alone", ge=1
    )
    shard_minutes: float = output_field(
        1200.0, "maximum minutes of audio in a shard, where the catalog has durations", gt=0
    )

    # Segments.
    segments: Literal["auto", "catalog", "file", "json", "captions", "voice", "fixed"] = output_field(
        "auto",
        "source of segment times; auto uses the catalog's, else JSON, else captions, else voice activity, else fixed "
        "windows; file makes one segment of each file",
    )
    caption_languages: str | None = output_field(
        None, "languages of captions in order of preference, separated by commas; default: that of the video"
    )
    window_s: float = output_field(5.0, "duration of a fixed window in seconds", ge=0.4, le=60.0)
    min_segment_s: float = output_field(0.4, "minimum seconds of a segment; shorter segments are dropped", ge=0.0)
    max_segment_s: float = output_field(
        30.0, "maximum seconds of a segment; longer segments are dropped, longer speech is cut at a pause", gt=0, le=120
    )
    merge_captions: Literal["auto", "on", "off"] = output_field(
        "off",
        "join captions into segments of min_segment_s to max_segment_s that end at sentence ends and pauses; "
        "auto joins automatic captions only",
    )
    max_segment_time_ratio: float = output_field(
        1.5,
        "maximum total time of a video's segments, as a multiple of its audio; a video with more becomes a dead letter",
        ge=1,
        le=1000,
    )
    max_segments: int = output_field(
        100_000,
        "maximum number of segments in a video's JSON or captions; more make it a dead letter",
        ge=1,
        le=100_000,
    )
    voice_threshold: float = output_field(
        0.5, "speech probability of a frame of 32 ms at which a segment starts", gt=0, lt=1
    )
    voice_hysteresis: float = output_field(
        0.15, "a segment ends when the speech probability is this far below voice_threshold", ge=0, lt=1
    )
    voice_gap_s: float = output_field(0.5, "pauses shorter than this do not end a segment, in seconds", ge=0.0, le=10.0)
    voice_pad_s: float = output_field(0.1, "seconds added before and after the speech of a segment", ge=0.0, le=2.0)
    voice_min_s: float = output_field(0.25, "sounds shorter than this are not speech, in seconds", ge=0.0, le=10.0)

    # Audio.
    measure_channels: Literal["mean", "source"] = output_field(
        "mean", "mean measures the mean of the channels, as the output has it; source measures the channels as they are"
    )
    sample_rate: int = output_field(16_000, "sample rate of the output in Hz", ge=8_000, le=48_000)
    audio_format: Literal["flac", "wav", "opus", "mp3"] = output_field("flac", "codec of the output")
    sidecar_info: bool = output_field(
        False, "add title, channel, upload_date, chapters and info_language of the video to the JSON of each segment"
    )
    normalize_lufs: float | None = output_field(
        None,
        "normalize each output segment to this integrated loudness in LUFS; none leaves it unchanged",
        ge=-70,
        le=0,
    )
    true_peak_dbtp: float = output_field(
        -1.0, "maximum true peak in dBTP to which normalize_lufs may raise a segment", le=0
    )
    truncated: Literal["reject", "keep"] = output_field(
        "reject", "media that ends before its declared duration: reject the video, or keep the audio that exists"
    )
    max_video_s: float = output_field(43_200.0, "maximum seconds of a video; longer videos become dead letters", gt=0)
    max_undeclared_s: float = output_field(
        600.0, "maximum seconds of audio after the declared end of a video; more makes it a dead letter", ge=1
    )
    max_source_mb: int = output_field(20_000, "maximum megabytes of a video's object; larger: a dead letter", ge=1)
    max_channels: int = output_field(
        8, "maximum number of audio channels; videos with more become dead letters", ge=1, le=64
    )
    silence_dbfs: float = output_field(
        -70.0, "a video whose sample peaks all stay below this level in dBFS becomes a dead letter", le=0
    )

    # Scorers.
    scorers: str = output_field(
        "signal",
        "scorers of segments, separated by commas, signal first: dnsmos, speakers, transcript, those of installed "
        "packages, and networks by the address of their YAML file",
    )
    speaker_labels: bool = output_field(
        False,
        "let the scorer speakers tell the speakers of a video apart, and fill in speaker where the source has none",
    )
    speaker_embeddings: bool = output_field(
        False, "add voice embeddings of the scorer speakers: they identify persons, which the law may restrict"
    )

    keep_if: str | None = output_field(
        None,
        "SQL condition over the columns of segments, for example 'dnsmos_ovrl >= 3 AND speakers = 1'; a segment is "
        "dropped if a part of it is false, not if a value is missing; the part is the drop reason",
    )

    # Thresholds: a segment beyond any of them is dropped with the reason; None switches a threshold off.
    min_loudness_lufs: float | None = output_field(
        -50.0, "minimum integrated loudness in LUFS; drop reason 'too_quiet'"
    )
    max_loudness_lufs: float | None = output_field(None, "maximum integrated loudness in LUFS; drop reason 'too_loud'")
    max_clipping_ratio: float | None = output_field(
        0.005, "maximum share of clipped samples; drop reason 'clipped'", ge=0, le=1
    )
    max_silence_ratio: float | None = output_field(
        0.9, "maximum share of silent time; drop reason 'mostly_silence'", ge=0, le=1
    )
    min_snr_db: float | None = output_field(5.0, "minimum signal-to-noise ratio in dB; drop reason 'noisy'")
    min_bandwidth_hz: float | None = output_field(None, "minimum bandwidth in Hz; drop reason 'narrow_band'", ge=0)

    keep_dropped: bool = output_field(
        False,
        "also write dropped segments, to <language>/dropped_*.tar, so that `audiopipe select` can take them later",
    )

    # Duplicates.
    duplicate_similarity: float | None = output_field(
        0.15, "similarity from which two videos count as duplicates; none switches the search off", gt=0, le=1
    )

    # Execution.
    batch_segments: int = output_field(128, "maximum number of segments in a batch", ge=1, le=4096)
    batch_mb: int = output_field(64, "maximum megabytes of samples in a batch", ge=1, le=4096)
    batch_queue_mb: int = output_field(
        256, "maximum megabytes of samples in a shard that wait for their batch to fill", ge=1
    )
    memory_mb: int = run_field(1024, "maximum megabytes of samples in a worker, all its shards together", ge=1)
    device: Literal["auto", "cpu", "cuda"] = run_field("auto", "device of the kernels; auto uses a GPU if there is one")
    cluster: str = run_field("auto", "name of a cluster profile")
    workers: int | None = run_field(None, "number of workers; default: that of the cluster profile", ge=1)
    shards_in_flight: int = run_field(2, "number of shards that a worker processes at once", ge=1, le=16)
    prefetch_videos: int = run_field(4, "maximum number of videos fetched ahead of the decoder", ge=1, le=256)
    prefetch_mb: int = run_field(
        2048, "maximum megabytes of videos fetched ahead of the decoder, on the scratch disk", ge=1
    )
    decoders: int = run_field(
        4,
        "number of videos of a shard that decode in parallel ahead of scoring; more than 4 have no effect",
        ge=1,
        le=128,
    )
    encoders: int = run_field(2, "number of encoder threads for each shard of a worker", ge=1, le=128)
    decode_timeout_s: float = run_field(120.0, "seconds without a sample after which a decoder is stopped", gt=0)
    scratch: str | None = run_field(
        None, "local folder for temporary files of shards in progress; default: the system's temporary folder"
    )
    max_missing_share: float = run_field(
        0.5, "share of a shard's videos above which missing ones are the fault of their place; 1: never", ge=0, le=1
    )
    max_failed_share: float = run_field(
        0.1, "share of failed videos above which a finished run counts as failed: exit code 5", ge=0, le=1
    )
    retries: int = run_field(3, "number of retries of a shard after transient errors", ge=0, le=100)
    heartbeat_s: float = run_field(10.0, "seconds between updates of the ledger", gt=0)
    metrics_address: str | None = run_field(None, "port or host:port where the driver serves Prometheus metrics")

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
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
        if self.scorers.split(",")[0].strip() != "signal":
            raise ValueError("scorers must start with signal: the thresholds need its columns")
        self.create_scorers()
        _ = self.keep_condition
        return self

    @property
    def keep_condition(self) -> Condition | None:
        """Return the condition of `keep_if`; None if there is none."""
        if self.keep_if is None:
            return None
        from audiopipe.config.keep_if import parse_keep_if  # noqa: PLC0415 - the condition needs DuckDB

        return parse_keep_if(self.keep_if, self.create_scorers())

    @property
    def learned_scorers(self) -> str:
        """Return the list of scorers without `signal`, which the pipeline computes in the pass that resamples."""
        return self.scorers.partition(",")[2]

    def create_scorers(self) -> tuple[Scorer, ...]:
        """Create the scorers of the run."""
        return create_scorers(
            self.scorers, speaker_labels=self.speaker_labels, speaker_embeddings=self.speaker_embeddings
        )

    @property
    def languages(self) -> frozenset[str] | None:
        """Return the selected languages, or None for all."""
        return None if self.language == "all" else frozenset(self.language.split(","))

    @property
    def listed_languages(self) -> list[str] | None:
        """Return the selected languages without repetition in the order of the list, or None for all."""
        return None if self.language == "all" else list(dict.fromkeys(self.language.split(",")))

    @property
    def caption_tags(self) -> tuple[str, ...]:
        """Return the languages of `caption_languages`; empty for that of the video."""
        return tuple(self.caption_languages.split(",")) if self.caption_languages else ()

    def output_fields(self) -> dict[str, str | float | bool | None]:
        """Return the names and values of the fields that the bytes of the output depend on.

        Of scorers these are the names and versions, not the addresses of files; conditions are in one spelling.
        """
        condition = self.keep_condition
        scorers = ",".join(f"{scorer.name}-{scorer.version}" for scorer in self.create_scorers())
        return {name: getattr(self, name) for name in self.digest_names()} | {
            "scorers": scorers,
            "keep_if": condition and condition.text,
        }

    @property
    def digest(self) -> str:
        """Return 16 hex digits of a SHA-256 over the output fields and the output version."""
        body = {"output_version": OUTPUT_VERSION, **self.output_fields()}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
