import os
import shutil
import time
from pathlib import Path

import pytest
from output_factory import config, content, corpus, make_output

from audiopipe.dataset.commit import read_commit
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    make_output(config(corpus(folder / "corpus", videos=2, missing=False), folder / "out"))
    return folder / "out"


@pytest.fixture
def littered(whole: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for name in (
        *(
            "_parts/en-000000/dead/audio_000000.tar",
            "_parts/draft-1",
            "en/audio_000007.tar",
            "en/videos_000007.parquet",
        ),
        *("en/notes.txt", "fr/audio_000000.tar", "reports/quality.html", "en/audio_7.tar", "other/en/audio_000000.tar"),
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"12345")
    return out


GARBAGE = {
    "_parts/draft-1",
    "_parts/en-000000/dead/audio_000000.tar",
    "en/audio_000007.tar",
    "en/videos_000007.parquet",
}


def test_listing_names_what_no_commit_names_and_removes_nothing(littered: Path) -> None:
    before = content(littered)
    garbage = collect_garbage(str(littered), min_age_h=0)
    assert (set(garbage.objects), garbage.size, garbage.removed) == (GARBAGE, 20, False)
    assert content(littered) == before


def test_removing_touches_nothing_else(littered: Path) -> None:
    before = {path for path in littered.rglob("*") if path.is_file()}
    collect_garbage(str(littered), remove=True, min_age_h=0)
    assert before - {path for path in littered.rglob("*") if path.is_file()} == {littered / name for name in GARBAGE}
    assert verify(str(littered)).findings == ()
    assert collect_garbage(str(littered), min_age_h=0).objects == {}


def test_parts_of_an_attempt_that_may_be_in_progress_are_left_alone(littered: Path) -> None:
    old = time.time() - 25 * 3600
    os.utime(littered / "_parts/draft-1", (old, old))
    objects = collect_garbage(str(littered)).objects
    assert "_parts/draft-1" in objects
    assert "_parts/en-000000/dead/audio_000000.tar" not in objects


def test_committed_but_unpublished_parts_are_kept(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    commit = read_commit(Store(str(out)), "en-000000")
    assert commit is not None
    item = commit.objects[0]
    (out / item.part).parent.mkdir(parents=True)
    (out / item.name).rename(out / item.part)  # as after a kill between commit and publication
    collect_garbage(str(out), remove=True, min_age_h=0)
    assert (out / item.part).exists()


def test_where_a_commit_is_damaged_nothing_is_removed(littered: Path) -> None:
    (littered / "_commits/en-000000.json").write_bytes(b"{}")
    with pytest.raises(VerifyError, match="damaged"):
        collect_garbage(str(littered), remove=True, min_age_h=0)
    assert (littered / "_parts/draft-1").exists()


@pytest.mark.parametrize("copies", [True, False])
def test_where_the_plan_is_lost_nothing_is_removed(littered: Path, copies: bool) -> None:
    """Refuse: every shard of the language would count as not planned."""
    (littered / "_plan/en-000.parquet").unlink()
    if not copies:
        for path in (littered / "_backup/_plan").iterdir():
            path.unlink()
    before = {path for path in littered.rglob("*") if path.is_file()}
    with pytest.raises(VerifyError, match=r"_plan/en-000.parquet: damaged or missing; run `audiopipe restore"):
        collect_garbage(str(littered), remove=True, min_age_h=0)
    assert {path for path in littered.rglob("*") if path.is_file()} == before


def test_a_foreign_commit_changes_no_total_and_is_removed(littered: Path) -> None:
    before = content(littered)
    (littered / "_commits/en-000009.json").write_bytes((littered / "_commits/en-000000.json").read_bytes())
    finalize(Store(str(littered)))
    assert content(littered) == before
    assert "_commits/en-000009.json" in collect_garbage(str(littered), remove=True, min_age_h=0).objects
    assert verify(str(littered)).findings == ()
