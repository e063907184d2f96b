"""The errors of this package, as a tree. A message says what was wrong, where, and what to do.

AudiopipeError
├── ConfigError            a parameter is unknown, invalid, or differs from the run's        (exit code 2)
├── MissingExtra           a package that an extra installs is not installed                 (exit code 2)
├── CatalogError           the catalog cannot be read                                        (exit code 2)
├── PlanError              the stored plan does not match the parameters or is damaged       (exit code 2)
├── ClusterError           the cluster's workers did not start                               (exit code 4)
├── LedgerError            the ledger has no such run, another version, or rejects the key    (exit code 2)
│   └── LedgerUnavailable  the ledger is locked, full, read-only, damaged or does not answer  (exit code 4)
├── TransientError         the network or a store failed; a retry may succeed                (exit code 4)
│   ├── StoreError         an object store operation failed
│   ├── SourceUnavailable  the place of the sources (mount, bucket, host) cannot be used; no video is at fault
│   └── TransientVideoError    an attempt failed at one video; after the last attempt, the video is a dead letter
│       ├── UnreadableSource   the object cannot be read, although others in the same place can
│       ├── DecoderCrash       the decoder process was killed from outside
│       └── DecoderTimeout     the decoder process gave no sample for `decode_timeout_s`
├── WorkerFailure          the worker itself cannot work: its GPU, memory, disk or libraries  (exit code 4)
│   └── BrokenWorker       it cannot until a person repairs it: driver, full disk, library       (exit code 2)
├── ScorerError            a scorer raises, or returns what it must not                        (exit code 2)
├── PermanentStoreError    wrong keys, no permission, no bucket, or a full disk              (exit code 2)
├── VerifyError            the output does not match its commits
└── VideoError             the video can never be processed; it becomes a dead letter and the run continues
    ├── MissingSource      the object at its address does not exist
    ├── ForbiddenSource    the object may not be read, although others in the same place may
    ├── InvalidSource      the object is not a file, or its file system fails at it alone
    ├── EmptySource        the object has no bytes
    ├── TooLarge           the object is larger than `max_source_mb`
    ├── BadTar             the object is not a tar, is truncated, or has an unsafe member
    ├── NoAudio            the file does not have an audio member or stream
    ├── UndecodableMedia   the decoder cannot decode the file
    ├── TruncatedMedia     the audio ends before its declared duration
    ├── TooLong            the audio is longer than `max_video_s`, or than it declares
    ├── BadSegments        the segment times cannot be read, or are required and missing
    ├── PoisonVideo        processes that worked on this video alone crashed
    └── SilentAudio        no sample of any segment exceeds `silence_dbfs`
"""

from audiopipe.errors.runs import (
    AudiopipeError,
    BrokenWorker,
    CatalogError,
    ClusterError,
    ConfigError,
    DecoderCrash,
    DecoderTimeout,
    LedgerError,
    LedgerUnavailable,
    MissingExtra,
    PermanentStoreError,
    PlanError,
    ScorerError,
    SourceUnavailable,
    StoreError,
    TransientError,
    TransientVideoError,
    UnreadableSource,
    VerifyError,
    WorkerFailure,
)
from audiopipe.errors.videos import (
    BadSegments,
    BadTar,
    EmptySource,
    ForbiddenSource,
    InvalidSource,
    MissingSource,
    NoAudio,
    PoisonVideo,
    SilentAudio,
    TooLarge,
    TooLong,
    TruncatedMedia,
    UndecodableMedia,
    VideoError,
)

# fmt: off
__all__ = [
    "AudiopipeError", "BadSegments", "BadTar", "BrokenWorker", "CatalogError", "ClusterError", "ConfigError",
    "DecoderCrash", "DecoderTimeout", "EmptySource", "ForbiddenSource", "InvalidSource", "LedgerError",
    "LedgerUnavailable", "MissingExtra", "MissingSource", "NoAudio", "PermanentStoreError", "PlanError", "PoisonVideo",
    "ScorerError", "SilentAudio", "SourceUnavailable", "StoreError", "TooLarge", "TooLong", "TransientError",
    "TransientVideoError", "TruncatedMedia", "UndecodableMedia", "UnreadableSource", "VerifyError", "VideoError",
    "WorkerFailure",
]
# fmt: on
