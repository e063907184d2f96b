"""Describe a complete dataset: `dataset.json`, the list of its tars, its card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from audiopipe.dataset.annotations import AnnotationRecord, list_annotations
from audiopipe.dataset.checksum import add_checksum, md5
from audiopipe.dataset.commit import Commit, read_commits
from audiopipe.dataset.croissant import CROISSANT, to_croissant
from audiopipe.dataset.duplicates import DuplicateCounts, count_duplicates, write_duplicates
from audiopipe.dataset.empty_shards import empty_files
from audiopipe.dataset.finalized import digest_inputs, is_finalized, write_finalized
from audiopipe.dataset.hugging_face import card_header, tar_patterns
from audiopipe.dataset.run_record import RunRecord, read_run_record
from audiopipe.dataset.schema import DESCRIPTION, is_audio_tar
from audiopipe.dataset.select_lists import read_summary
from audiopipe.dataset.totals import Totals, effective_results
from audiopipe.dataset.virtual import is_virtual
from audiopipe.media.encode import SUFFIXES
from audiopipe.plan.files import PLAN_FOLDER
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.objects import Store
from audiopipe.types import shard_name

__all__ = ["describe", "description_files", "finalize"]


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """The content of `dataset.json` and of the dataset's card.

    `plan` has the sha256 of each file of the plan, `summary` the counts of a selection before and after.
    """

    run: RunRecord
    plan: Mapping[str, str]
    total: Totals
    languages: Mapping[str, Totals]
    duplicates: DuplicateCounts | None
    annotations: tuple[AnnotationRecord, ...] = ()
    summary: Mapping[str, Any] | None = None

    def to_json(self) -> bytes:
        """Serialize the description with a checksum."""
        body: dict[str, object] = {
            "run_id": self.run.run_id,
            "version": self.run.versions["audiopipe"],
            "config_digest": self.run.config_digest,
            "config": self.run.config,
            "scorers": [scorer.to_dict() for scorer in self.run.scorers],
            "plan": self.plan,
            "total": self.total.counts(),
            "languages": {language: totals.counts() for language, totals in self.languages.items()},
        }
        if self.duplicates is not None:
            body["duplicates"] = asdict(self.duplicates)
        if self.annotations:
            body["annotations"] = {record.id: [column.name for column in record.columns] for record in self.annotations}
        if self.summary is not None:
            body |= {"parent": self.run.parent, "selection": self.summary}
        return add_checksum(body)

    def to_card(self) -> str:
        """Render the card of the dataset in Markdown."""
        run = self.run
        rows = [
            f"| {language} | {totals.videos_done:,} / {totals.videos:,} | {totals.segments_kept:,} "
            f"| {totals.kept_s / 3600:,.2f} |"
            for language, totals in self.languages.items()
        ]
        suffix = SUFFIXES[run.audio_format][1:]
        columns = [column for scorer in run.scorers for column in scorer.columns] + list(run.catalog_columns)
        header = card_header(suffix, self._files(), columns, bool(run.config.get("sidecar_info")))
        return "\n".join(
            [
                *(header if not is_virtual(run) else []),
                "",
                "# Speech dataset",
                "",
                f"Made by audiopipe {run.versions['audiopipe']}: run `{run.run_id}`, config `{run.config_digest}`.",
                "Every parameter is in `dataset.json`. Every segment, kept or dropped, with metrics and source, is in",
                "`<language>/segments_*.parquet`; every video in `<language>/videos_*.parquet`.",
                "",
                "| language | videos done | segments kept | hours kept |",
                "| --- | ---: | ---: | ---: |",
                *rows,
                "",
                *self._selection_lines(),
                *self._loading_lines(suffix),
                *self._scorer_lines(),
                *(self._annotation_lines() if self.annotations else []),
                *(self._duplicate_lines() if self.duplicates is not None else []),
            ]
        )

    def _loading_lines(self, suffix: str) -> list[str]:
        """Say how to read the audio: code that runs in the folder of the card."""
        if is_virtual(self.run):
            return [
                "The audio is in the tars of the parent; `audiopipe.Dataset` reads it from there:",
                "",
                "```python",
                "import audiopipe",
                'for segment in audiopipe.Dataset("."):',
                "    segment.audio, segment.sample_rate, segment.text",
                "```",
                "",
            ]
        splits = [split for files in self._files().values() for split in files]
        return [
            f"Audio is {self.run.config['sample_rate']} Hz mono {suffix}, in WebDataset tars that `tars.txt` lists. In",
            "the folder of this file:",
            "",
            "```python",
            "import io, json, soundfile, webdataset",
            'dataset = webdataset.WebDataset(open("tars.txt").read().split(), shardshuffle=False)',
            "sample = next(iter(dataset))",
            f'audio, sample_rate = soundfile.read(io.BytesIO(sample["{suffix}"]))',
            'about = json.loads(sample["json"])  # text, language, metrics',
            "```",
            "",
            "With Hugging Face's `datasets`; the header of this file has the types of the JSON:",
            "",
            "```python",
            "import os, datasets",
            "folder = os.getcwd()  # or the name of the dataset on the hub",
            "features = datasets.load_dataset_builder(folder).info.features",
            f'features["{suffix}"] = datasets.Value("binary")  # without this line torchcodec decodes',
            "dataset = datasets.load_dataset(",
            f'    folder, features=features, split="{splits[0] if splits else "train"}", streaming=True',
            ")",
            "sample = next(iter(dataset))",
            "```",
            "",
        ]

    def _files(self) -> dict[str, dict[str, list[str]]]:
        """Return the patterns of the tars of each language by split."""
        splits = {} if self.summary is None else self.summary["splits"]
        return {
            language: {
                split: tar_patterns(language, first, end) for split, (first, end) in splits.get(language, {}).items()
            }
            or {"train": [f"{language}/audio_*.tar"]}
            for language, totals in self.languages.items()
            if totals.segments_kept  # a pattern that matches no file is an error for the hub's reader
        }

    def _selection_lines(self) -> list[str]:
        """Say what a selection was made from."""
        if self.run.parent is None:
            return []
        parent, options = self.run.parent, self.run.parent["options"]
        lines = [
            f"A selection from run `{parent['run_id']}`: `{options['where']}`. `dataset.json` has all options, and"
        ]
        lines.append("the segments of each language that were left out, with the reasons.")
        if options["virtual"]:
            lines.append("Audio is not copied: the tables and manifests name members of the tars of that run.")
        return [*lines, ""]

    def _scorer_lines(self) -> list[str]:
        """List the columns of the scorers."""
        rows = [
            f"| `{column.name}` | {scorer.name} {scorer.version} | {column.unit} | {column.description} |"
            for scorer in self.run.scorers
            for column in scorer.columns
        ]
        rows += [f"| `{column.name}` | catalog | | {column.description} |" for column in self.run.catalog_columns]
        return ["| column | scorer | unit | meaning |", "| --- | --- | --- | --- |", *rows, ""]

    def _annotation_lines(self) -> list[str]:
        rows = [
            f"| `{column.name}` | `{record.folder}` | {column.unit} | {column.description} |"
            for record in self.annotations
            for column in record.columns
        ]
        return [
            "Columns that were added later are in tables with the key of the segment, one for each shard:",
            "",
            "| column | folder | unit | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]

    def _duplicate_lines(self) -> list[str]:
        assert self.duplicates is not None
        count, hours = self.duplicates.videos, self.duplicates.hours
        return [
            f"{count} videos ({hours:.2f} h) have the audio of another: `duplicates.parquet` names them.",
            "They are in the tars and the tables, and not in the manifests `<language>/unique_manifest_*.json`.",
            "",
        ]


def finalize(
    store: Store,
    plan: Plan | None = None,
    commits: Mapping[str, Commit] | None = None,
    listed: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the duplicates and the description of a complete dataset; the same shards give the same bytes.

    In an S3 store, nothing is written if `listed` shows that it is there.

    Args:
        plan, commits: of the dataset, if they have been read already.
        listed: entries of the objects in the folders of the languages.
    """
    run, plan = read_run_record(store), load_plan(store) if plan is None else plan
    commits = read_commits(store, plan.shard_names()) if commits is None else commits
    digest = None
    if store.is_s3 and listed is not None:
        digest = digest_inputs(store, run, commits, list_annotations(store))
        if is_finalized(store, digest, listed):
            return
    tags = write_duplicates(store, commits, run.duplicate_similarity, listed or {})
    files = description_files(store, run, commits, plan)
    store.map(lambda item: store.write(*item), files.items())
    if digest is not None:
        write_finalized(store, digest, tags | {name: md5(data) for name, data in files.items()})


def describe(store: Store) -> None:
    """Write the description of a complete dataset again, for example with a new annotation; else do nothing."""
    run, plan = read_run_record(store), load_plan(store)
    commits = read_commits(store, plan.shard_names())
    if commits.keys() == plan.shard_names() and store.size(DESCRIPTION) is not None:
        for name, data in description_files(store, run, commits, plan).items():
            store.write(name, data)


def description_files(store: Store, run: RunRecord, commits: Mapping[str, Commit], plan: Plan) -> dict[str, bytes]:
    """Return the objects that describe the whole dataset, by name.

    Raises:
        VerifyError: the table of duplicates is missing or damaged.
    """
    results = effective_results(commits, plan)
    ordered = [results[shard] for shard in sorted(results)]
    tars = [item for shard in sorted(commits) for item in commits[shard].objects if is_audio_tar(item.name)]
    by_language: dict[str, Totals] = {}
    for result in ordered:
        by_language.setdefault(result.language, Totals()).add(result)
    description = DatasetDescription(
        run=run,
        plan={name: hashlib.sha256(store.read(name)).hexdigest() for name in store.list(PLAN_FOLDER)},
        total=Totals.of(ordered),
        languages=dict(sorted(by_language.items())),
        annotations=tuple(item.record for item in list_annotations(store) if item.shards >= commits.keys()),
        duplicates=None if run.duplicate_similarity is None else count_duplicates(store),
        summary=None if run.parent is None else read_summary(store),
    )
    split_lists = _split_lists(description.summary, commits)
    return {
        **(empty_files(commits.values(), unique=description.duplicates is not None) if not is_virtual(run) else {}),
        **split_lists,
        DESCRIPTION: description.to_json(),
        "tars.txt": "".join(f"{tar.name}\n" for tar in tars).encode(),
        "README.md": description.to_card().encode(),
        CROISSANT: to_croissant(run, tars, description.annotations, description.total.kept_s / 3600),
    }


def _split_lists(summary: Mapping[str, Any] | None, commits: Mapping[str, Commit]) -> dict[str, bytes]:
    """Return a list of tars for each split of a selection, by the name of the list."""
    lists: dict[str, list[str]] = {}
    for language, splits in ({} if summary is None else summary["splits"]).items():
        for split, (first, end) in splits.items():
            for index in range(first, end):
                objects = commits[shard_name(language, index)].objects if shard_name(language, index) in commits else ()
                lists.setdefault(split, []).extend(item.name for item in objects if is_audio_tar(item.name))
    return {f"tars_{split}.txt": "".join(f"{tar}\n" for tar in tars).encode() for split, tars in lists.items()}
