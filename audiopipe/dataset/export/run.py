"""Export a finished dataset, shard by shard, so that an export that was interrupted continues where it was.

    _export.json              what is exported, in which format; created once
    _export/<shard>.json      one per exported shard, written after its files: their sizes, sha256 and samples

Each file appears under its name when it is complete. What describes the whole export is written last.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from audiopipe import __version__
from audiopipe.dataset.checksum import add_checksum, verify_checksum
from audiopipe.dataset.export.formats import ExportedShard, ExportFormat, SourceShard
from audiopipe.dataset.reader import Dataset
from audiopipe.errors import AudiopipeError, ConfigError, VerifyError
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store
from audiopipe.types import shard_name

__all__ = ["FORMATS", "ExportSummary", "export"]

FORMATS = {
    "parquet": "audiopipe.dataset.export.parquet:ParquetFormat",
    "lhotse-shar": "audiopipe.dataset.export.lhotse_shar:LhotseSharFormat",
    "mds": "audiopipe.dataset.export.mds:MdsFormat",
    "energon": "audiopipe.dataset.export.energon:EnergonFormat",
}
RECORD = "_export.json"
SHARDS = "_export"


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """The result of an export. `written` is the number of shards that this call wrote."""

    destination: str
    format: str
    shards: int
    written: int
    samples: int
    hours: float
    size: int


def export(
    output: str,
    destination: str | None = None,
    *,
    format: str = "parquet",  # noqa: A002 - the name of the option
    threads: int | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Write the kept segments of a finished dataset in another format; the same dataset gives the same bytes.

    Args:
        destination: a folder or URL; None for `energon`, whose index lies next to the tars.
        format: parquet, lhotse-shar, mds or energon.
        threads: shards that are written at a time; by default one per core, up to 8.
        on_shard: called with the number of exported shards, and of all shards.

    Raises:
        ConfigError: the destination holds another export or is part of the dataset, or the run is not finished.
        VerifyError: shards are damaged; all others were exported.
    """
    if format not in FORMATS:
        raise ConfigError(f"unknown format '{format}': choose one of {', '.join(FORMATS)}")
    dataset = Dataset(output)
    module, _, name = FORMATS[format].partition(":")
    writer: ExportFormat = getattr(import_module(module), name)(dataset)
    store = _open_destination(dataset, destination, writer)
    shards = _list_shards(dataset)
    _create_record(store, dataset, writer)
    done = {} if writer.in_place else _read_exported(store, shards)
    pending = [shard for shard in shards if shard.id not in done]
    written = _write_all(
        store, writer, pending, threads, lambda count: on_shard and on_shard(len(done) + count, len(shards))
    )
    exported = [(done | written)[shard.id] for shard in shards]
    for file, data in writer.describe(exported).items():
        store.write(file, data)
    if store.local_folder is not None and not writer.in_place:
        store.remove("_parts")
    return ExportSummary(
        destination=store.url,
        format=format,
        shards=len(exported),
        written=len(written),
        samples=sum(shard.count for shard in shards),
        hours=round(sum(item.seconds for item in exported) / 3600, 4),
        size=sum(int(file["size"]) for item in exported for file in item.files),
    )


def _open_destination(dataset: Dataset, destination: str | None, writer: ExportFormat) -> Store:
    if writer.in_place:
        if destination is not None and Store(destination).url != dataset.store.url:
            raise ConfigError(f"{writer.name} reads the tars where they are: leave the destination out")
        return dataset.store
    if destination is None:
        raise ConfigError(f"{writer.name} needs a destination: audiopipe export OUTPUT DEST --format {writer.name}")
    store = Store(destination)
    inner, outer = f"{_absolute(store)}/", f"{_absolute(dataset.store)}/"
    if inner.startswith(outer) or outer.startswith(inner):
        raise ConfigError(f"{store.url} and {dataset.store.url} overlap: choose a destination outside of the dataset")
    return store


def _absolute(store: Store) -> str:
    folder = store.local_folder
    return str(folder.resolve()) if folder is not None else str(store.fs.unstrip_protocol(store.root))


def _list_shards(dataset: Dataset) -> list[SourceShard]:
    """List the shards that have kept segments; refuse an output that is not finished."""
    planned = load_plan(dataset.store).shard_names()
    missing = len(planned - dataset.commits.keys())
    if missing:
        raise ConfigError(
            f"{missing} of {len(planned)} shards of {dataset.store.url} are not committed: finish the run first, "
            f"`audiopipe resume {dataset.store.url}`"
        )
    split = "split" if "split" in dataset.columns else "'train'"
    rows = dataset.query(
        f"SELECT language, shard, {split}, count(*), sum(duration_s) FROM segments WHERE kept GROUP BY ALL ORDER BY ALL"
    ).to_pylist()
    shards = []
    for language, number, name, count, seconds in (row.values() for row in rows):
        shard = shard_name(language, number)
        version = _version_of(dataset, shard)
        shards.append(SourceShard(shard, language, number, name or "train", count, seconds, version))
    return shards


def _version_of(dataset: Dataset, shard: str) -> str:
    """Return a digest of what a shard has: of its objects and of the annotations of it."""
    objects = [item.sha256 for item in dataset.commits[shard].objects]
    added = [f"{item.record.id} {item.record.digest} {shard in item.shards}" for item in dataset.annotations]
    return hashlib.sha256("\n".join(objects + added).encode()).hexdigest()


def _create_record(store: Store, dataset: Dataset, writer: ExportFormat) -> None:
    """Record what the destination is an export of, or check that it is the same."""
    body: dict[str, object] = {
        "source": dataset.store.url,
        "run_id": dataset.run.run_id,
        "config_digest": dataset.run.config_digest,
        "format": writer.name,
        "columns": writer.columns,
        "version": __version__,
    }
    if writer.in_place or store.create(RECORD, add_checksum(body)):
        return
    recorded = verify_checksum(store.read(RECORD), RECORD)
    names = [name for name in body if name != "source" and recorded.get(name) != body[name]]
    if names:
        differences = "; ".join(f"{name}: {recorded.get(name)} there, {body[name]} here" for name in names)
        raise ConfigError(f"{store.url} holds another export ({differences}): choose another destination")


def _read_exported(store: Store, shards: Iterable[SourceShard]) -> dict[str, ExportedShard]:
    """Read the records of the shards that were exported as they are now."""
    names = list(store.list(SHARDS))
    records = [ExportedShard.from_json(data, name) for name, data in store.read_all(names).items()]
    versions = {shard.id: shard.version for shard in shards}
    return {item.id: item for item in records if versions.get(item.id) == item.version}


def _write_all(
    store: Store,
    writer: ExportFormat,
    shards: list[SourceShard],
    threads: int | None,
    on_count: Callable[[int], object],
) -> dict[str, ExportedShard]:
    written: dict[str, ExportedShard] = {}
    failed: dict[str, AudiopipeError] = {}
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "audiopipe-export") as pool:
        futures = {pool.submit(_write_shard, store, writer, shard): shard.id for shard in shards}
        try:
            for future in as_completed(futures):
                try:
                    written[futures[future]] = future.result()
                except VerifyError as error:
                    failed[futures[future]] = error
                on_count(len(written) + len(failed))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if failed:
        messages = "; ".join(f"{shard}: {failed[shard]}" for shard in sorted(failed))
        raise VerifyError(f"{len(failed)} shards could not be exported, all others were: {messages}")
    return written


def _write_shard(store: Store, writer: ExportFormat, shard: SourceShard) -> ExportedShard:
    with tempfile.TemporaryDirectory(prefix="audiopipe-export-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            counts = writer.write_shard(shard, folder)
        except FileNotFoundError as error:
            raise VerifyError(f"an object is missing: {error}") from error
        files = tuple(_upload(store, folder / file, file, count) for file, count in counts.items())
    exported = ExportedShard(shard.id, shard.language, shard.split, shard.version, shard.seconds, files)
    if not writer.in_place:
        store.write(f"{SHARDS}/{shard.id}.json", exported.to_json())
    return exported


def _upload(store: Store, path: Path, name: str, samples: int) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    store.upload(path, name)
    return {"name": name, "size": path.stat().st_size, "sha256": digest, "samples": samples}
