"""Run an output whose videos are not where its catalog says, and one that is given another catalog."""

import shutil
from pathlib import Path

import pytest
from distributed import Client
from output_factory import config, content, corpus, make_output

from audiopipe.dataset.commit import read_commits
from audiopipe.driver import run
from audiopipe.errors import ConfigError, StoreError
from audiopipe.pipeline import video
from audiopipe.store.objects import Store

pytestmark = pytest.mark.usefixtures("fast_ticks")


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return corpus(tmp_path / "c", videos=4, missing=False, seconds=1.0)


def letters(output: Path) -> set[tuple[str, str]]:
    commits = read_commits(Store(str(output))).values()
    return {(letter.video_id, letter.error_type) for commit in commits for letter in commit.result.dead_letters}


def test_the_right_prefix_finishes_what_a_wrong_one_began(client: Client, catalog: Path, tmp_path: Path) -> None:
    make_output(config(catalog, tmp_path / "reference"))
    output = tmp_path / "out"
    wrong = config(catalog, output, source_prefix=str(tmp_path / "wrong"), retries=1)
    summary = run.run(wrong, client=client)
    assert (summary.exit_code, summary.total.shards, letters(output)) == (4, 0, set())
    assert "wrong/videos does not exist" in next(iter(summary.shards_failed.values()))
    assert run.run(config(catalog, output, source_prefix=str(tmp_path / "c")), client=client).exit_code == 0
    for name in ("segments", "audio"):
        paths = [path for path in content(output) if name in path and not path.startswith("_")]
        assert [content(output)[path] for path in paths] == [content(tmp_path / "reference")[path] for path in paths]


def test_resume_finds_videos_that_have_moved(client: Client, catalog: Path, tmp_path: Path) -> None:
    output, settings = tmp_path / "out", config(catalog, tmp_path / "out", retries=0)
    shutil.move(tmp_path / "c/videos", tmp_path / "moved/videos")
    assert run.run(settings, client=client).exit_code == 4
    assert run.resume(str(output), client=client, retries=0).exit_code == 4
    assert run.resume(str(output), client=client, source_prefix=str(tmp_path / "moved")).exit_code == 0


def test_retry_takes_another_prefix_or_a_corrected_catalog(client: Client, catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.move(tmp_path / "c/videos", tmp_path / "moved/videos")
    accepting = config(catalog, output, max_missing_share=1)
    assert run.run(accepting, client=client).exit_code == 3
    assert letters(output) == {(f"video{number:02d}", "MissingSource") for number in range(4)}
    assert run.retry(str(output), client=client, retries=0).exit_code == 4  # the folder is still not there
    shutil.copy(catalog, tmp_path / "moved/catalog.parquet")
    assert run.retry(str(output), client=client, catalog=str(tmp_path / "moved/catalog.parquet")).exit_code == 0


def test_another_catalog_adds_nothing_unless_extended(client: Client, catalog: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run.run(config(catalog, output, language="en"), client=client).exit_code == 0
    other = corpus(tmp_path / "other", videos=7, missing=False, seconds=1.0)
    with pytest.raises(ConfigError, match="add these with --extend") as error:
        run.run(config(other, output), client=client)
    assert str(catalog) in str(error.value)
    assert run.run(config(other, output, language="en", extend=True), client=client).total.videos == 4


def test_a_source_that_always_fails_costs_only_itself(
    client: Client, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, attempts = video.fetch, []

    def fail(source, *rest):
        if source.video_id == "video02":
            attempts.append(source)
            raise StoreError("the rate is below the minimum")
        return real(source, *rest)

    monkeypatch.setattr(video, "fetch", fail)
    summary = run.run(config(catalog, tmp_path / "out", retries=2), client=client)
    assert (summary.exit_code, summary.total.videos, len(attempts)) == (3, 4, 3)
    assert letters(tmp_path / "out") == {("video02", "UnreadableSource")}
    monkeypatch.undo()
    assert run.retry(str(tmp_path / "out"), client=client).exit_code == 0
