import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from distributed import Client
from output_factory import config, content, corpus, make_output

from audiopipe.dataset.backup import restore
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify
from audiopipe.driver import run
from audiopipe.errors import PlanError, VerifyError
from audiopipe.store.objects import Store

# One of each kind of object, and how many of its bytes are damaged, one at a time.
KINDS = {
    "_run.json": 8,
    "_plan/en-000.parquet": 8,
    "_commits/en-000000.json": 8,
    "en/audio_000000.tar": 8,
    "en/segments_000000.parquet": 8,
    "en/videos_000000.parquet": 8,
    "en/manifest_000000.json": 8,
    "dataset.json": 8,
    "tars.txt": 8,
    "README.md": 8,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete output, which tests do not change."""
    folder = tmp_path_factory.mktemp("whole")
    make_output(config(corpus(folder / "corpus"), folder / "out"))
    return folder / "out"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        yield client


def test_an_intact_output_has_no_findings(whole: Path) -> None:
    verification = verify(str(whole))
    assert verification.findings == ()
    assert (verification.shards, verification.samples) == (3, 10)
    assert verify(str(whole), fast=True).findings == ()


@pytest.mark.parametrize("name", KINDS)
def test_every_damaged_byte_is_found_and_named(copy: Path, name: str) -> None:
    target = copy / name
    good = target.read_bytes()
    for number in range(KINDS[name]):
        position = len(good) * number // KINDS[name]
        target.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        findings = verify(str(copy)).findings
        assert findings, f"byte {position} of {name}"
        assert any(finding.name in (name, "_plan", "_run.json") for finding in findings), findings
        assert all("audiopipe" in finding.remedy for finding in findings), findings


@pytest.mark.parametrize("name", [name for name in KINDS if not name.startswith("_run")])
def test_a_missing_object_is_found_and_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    messages = " ".join(str(finding) for finding in verify(str(copy)).findings)
    assert name in messages or name.rsplit("/", maxsplit=1)[-1].removesuffix(".json") in messages


def test_a_fast_check_finds_missing_or_resized_objects(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "en/audio_000000.tar").write_bytes(b"short")
    (copy / "de/manifest_000000.json").unlink()
    read = []
    monkeypatch.setattr(Store, "read", lambda self, name, real=Store.read: read.append(name) or real(self, name))
    damaged = {finding.name for finding in verify(str(copy), fast=True).findings}
    assert damaged == {"en/audio_000000.tar", "de/manifest_000000.json"}
    assert not [name for name in read if name.startswith(("en/", "de/"))]


# Damages to an output, by description.
DAMAGES = {
    "a flipped byte in a tar": lambda out: _flip(out / "en/audio_000000.tar"),
    "a flipped byte in a table": lambda out: _flip(out / "de/segments_000000.parquet"),
    "a flipped byte in the run": lambda out: _flip(out / "_run.json"),
    "a flipped byte in the plan": lambda out: _flip(out / "_plan/en-000.parquet"),
    "no run and no plan": lambda out: [path.unlink() for path in (out / "_run.json", *out.glob("_plan/*"))],
    "a flipped byte in a copy of the plan": lambda out: _flip(next(out.glob("_backup/_plan/en-000.*"))),
    "a run and a commit": lambda out: (_flip(out / "_run.json"), _flip(out / "_commits/de-000000.json")),
    "two damaged commits": lambda out: [_flip(out / f"_commits/{shard}.json") for shard in ("en-000000", "de-000000")],
    "a damaged commit": lambda out: _flip(out / "_commits/en-000000.json"),
    "a missing commit": lambda out: (out / "_commits/de-000000.json").unlink(),
    "a missing tar": lambda out: (out / "en/audio_000000.tar").unlink(),
    "a missing shard": lambda out: [
        path.unlink() for path in (*out.glob("en/*_000001.*"), out / "_commits/en-000001.json")
    ],
    "no description": lambda out: (out / "tars.txt").unlink(),
    "a damaged description": lambda out: _flip(out / "dataset.json"),
    "an object without a commit": lambda out: (out / "en/audio_000009.tar").write_bytes(b"stray"),
    "no backup": lambda out: shutil.rmtree(out / "_backup"),
    "no copy of the plan": lambda out: [path.unlink() for path in out.glob("_backup/_plan/*")],
    "a copied commit": lambda out: shutil.copy(out / "_commits/en-000000.json", out / "_commits/en-000009.json"),
    "a commit of another language": lambda out: _add_shard(out, "fr-000000"),
    "a commit of no planned shard": lambda out: _add_shard(out, "en-000009"),
    "a damaged commit of no planned shard": lambda out: (out / "_commits/en-000009.json").write_bytes(b"{}"),
    "a damaged and a foreign commit": lambda out: (
        _flip(out / "_commits/en-000000.json"),
        (out / "_commits/en-000009.json").write_bytes(b"{}"),
    ),
    "two at once": lambda out: (_flip(out / "en/audio_000000.tar"), (out / "README.md").unlink()),
}


def _add_shard(out: Path, name: str) -> None:
    """Add a whole shard that the plan does not have, as another run would commit it."""
    language, _, number = name.rpartition("-")
    commit = Commit.from_json((out / "_commits/en-000000.json").read_bytes())
    objects = [replace(item, name=f"{language}/{item.name[3:].replace('000000', number)}") for item in commit.objects]
    for item, new in zip(commit.objects, objects, strict=True):
        (out / new.name).parent.mkdir(exist_ok=True)
        shutil.copy(out / item.name, out / new.name)
    result = replace(commit.result, shard=name, language=language)
    (out / f"_commits/{name}.json").write_bytes(Commit(result, tuple(objects), commit.config_digest).to_json())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_recommended_command_repairs_it(copy: Path, whole: Path, client: Client, damage: str) -> None:
    DAMAGES[damage](copy)
    findings = verify(str(copy)).findings
    assert findings
    for _ in range(2):  # a repaired object may reveal further damage
        _run_remedies([finding.remedy for finding in verify(str(copy)).findings], client)
    assert verify(str(copy)).findings == ()
    assert content(copy) == content(whole)
    assert not (copy / "fr").exists() or not list((copy / "fr").iterdir())
    assert (copy / "_run.json").read_bytes() == (whole / "_run.json").read_bytes()


def _run_remedies(remedies: list[str], client: Client) -> None:
    for remedy in dict.fromkeys(remedies):
        arguments = remedy.split()
        assert arguments[:1] == ["audiopipe"]
        if arguments[1] == "gc":
            collect_garbage(arguments[2], remove="--remove" in arguments)
        elif arguments[1] == "restore":
            restore(arguments[2])
        else:
            assert arguments[1] == "resume"
            run.resume(
                arguments[2],
                shards=[value for option, value in pairwise(arguments) if option == "--shard"],
                client=client,
            )


def test_a_run_on_a_damaged_plan_is_refused_with_the_remedy(copy: Path) -> None:
    _flip(copy / "_plan/en-000.parquet")
    with pytest.raises((VerifyError, PlanError), match=r"audiopipe (restore|verify)"):
        run.resume(str(copy))
    assert restore(str(copy)) == ["_plan/en-000.parquet"]
    assert restore(str(copy)) == []


def test_damage_to_both_copies_is_reported_and_not_repaired(copy: Path) -> None:
    _flip(copy / "_run.json")
    _flip(next(copy.glob("_backup/_run.json.*")))
    (finding,) = verify(str(copy)).findings
    assert "damaged or missing, and so is _backup/_run.json" in finding.problem
    with pytest.raises(VerifyError, match="both damaged"):
        restore(str(copy))


def test_a_swap_of_two_good_shards_is_found(copy: Path) -> None:
    body = json.loads((copy / "_commits/en-000000.json").read_bytes())
    (copy / "_commits/de-000000.json").write_text(json.dumps(body, indent=1, ensure_ascii=False))
    assert {finding.name for finding in verify(str(copy)).findings} >= {"_commits/de-000000.json"}


def test_a_folder_that_is_not_an_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"has no _run.json"):
        verify(str(tmp_path))
