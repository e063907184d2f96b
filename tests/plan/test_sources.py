"""Check that an output keeps its catalog: another is refused, a catalog or videos that have moved are followed."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from output_factory import config

from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, ConfigError
from audiopipe.plan.plan import create_plan
from audiopipe.plan.sources import find_addresses, is_moved, move_shards, refuse_other_catalog
from audiopipe.store.objects import Store


def write_catalog(path: Path, names: str, language: str = "en") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "youtube_id,language,r2_tar_key,size_bytes\n" + "".join(f"{n},{language},{n}.tar,9\n" for n in names)
    )
    return path


@pytest.fixture
def planned(tmp_path: Path) -> RunConfig:
    """Plan an output from the catalog of the videos a to d; return the config."""
    settings = config(write_catalog(tmp_path / "videos.csv", "abcd"), tmp_path / "out")
    create_plan(settings, Store(settings.output))
    return settings


def check(planned: RunConfig, catalog: Path | str, **parameters: object) -> None:
    refuse_other_catalog(config(catalog, planned.output, **parameters), planned, Store(planned.output))


def test_the_same_catalog_is_accepted_even_if_it_is_lost(planned: RunConfig, tmp_path: Path) -> None:
    check(planned, planned.catalog)
    check(planned, f"file://{planned.catalog}")
    (tmp_path / "link.csv").symlink_to(planned.catalog)
    check(planned, tmp_path / "link.csv")
    Path(planned.catalog).unlink()
    check(planned, planned.catalog)
    with pytest.raises(CatalogError):
        check(planned, tmp_path / "another.csv")


def test_a_catalog_that_moved_or_was_exported_again_is_accepted(
    planned: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "audiopipe"):
        check(planned, write_catalog(tmp_path / "new/videos.csv", "dcba"))
        rows = (json.dumps({"youtube_id": name, "language": "en", "r2_tar_key": f"x/{name}"}) for name in "abcd")
        (tmp_path / "videos.jsonl").write_text("\n".join(rows))
        check(planned, tmp_path / "videos.jsonl")
    assert caplog.text.count("lists the same videos as") == 2


def test_a_catalog_that_only_grew_is_named(
    planned: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"new\.csv lists its 4 videos and 2 more: add these with --extend") as error:
        check(planned, write_catalog(tmp_path / "new.csv", "abcdef"))
    assert planned.catalog in str(error.value)
    check(planned, tmp_path / "new.csv", extend=True)
    write_catalog(Path(planned.catalog), "abcde")
    with caplog.at_level(logging.INFO, "audiopipe"):
        check(planned, planned.catalog)
    assert "has 1 videos that the plan lacks; --extend adds them" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [("uvwxyz", "lacks 4 of its 4 videos and lists 6 others"), ("abc", "lacks 1 of its 4 videos, so")],
)
def test_another_catalog_is_refused_with_both_names(
    planned: RunConfig, tmp_path: Path, names: str, message: str
) -> None:
    other = write_catalog(tmp_path / "other.csv", names)
    with pytest.raises(ConfigError, match=message) as error:
        check(planned, other)
    assert all(name in str(error.value) for name in (planned.catalog, str(other), "--extend", "audiopipe resume"))
    check(planned, other, extend=True)


def test_other_videos_at_the_same_address_are_another_catalog(planned: RunConfig) -> None:
    write_catalog(Path(planned.catalog), "uvw")
    with pytest.raises(ConfigError, match="is another catalog"):
        check(planned, planned.catalog)


def test_a_language_that_is_not_planned_is_no_difference(planned: RunConfig, tmp_path: Path) -> None:
    moved = write_catalog(tmp_path / "new.csv", "abcd")
    moved.write_text(moved.read_text() + "g,de,g.tar,9\n")
    check(planned, moved, language="de")


def test_videos_are_followed_to_another_prefix(planned: RunConfig, tmp_path: Path) -> None:
    (shard, _) = create_plan(planned, Store(planned.output)).shards()
    assert [video.uri for video in shard.videos] == [str(tmp_path / f"{name}.tar") for name in "ab"]
    moved = planned.model_copy(update={"source_prefix": "s3://videos/all"})
    assert is_moved(moved, planned)
    assert not is_moved(planned, planned)
    addresses = find_addresses(moved, planned, Store(planned.output))
    del addresses["b"]
    (shard,) = move_shards([shard], addresses)
    assert [video.uri for video in shard.videos] == ["s3://videos/all/a.tar", str(tmp_path / "b.tar")]


def test_a_folder_that_moved_takes_its_videos_with_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.tar").write_bytes(b"1")
    old, new = config(tmp_path / "old", tmp_path / "out"), config(tmp_path / "new", tmp_path / "out")
    create_plan(old, Store(old.output))
    shutil.move(tmp_path / "old", tmp_path / "new")
    refuse_other_catalog(new, old, Store(old.output))
    assert is_moved(new, old)
    assert find_addresses(new, old, Store(old.output)) == {"a": str(tmp_path / "new/a.tar")}


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/*"])
def test_a_prefix_replaces_the_folder_of_a_catalog(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a.tar").write_bytes(b"1")
    old = config(f"{tmp_path}/old{pattern}", tmp_path / "out")
    create_plan(old, Store(old.output))
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = old.model_copy(update={"source_prefix": str(tmp_path / "new")})
    assert is_moved(moved, old)
    assert find_addresses(moved, old, Store(old.output)) == {"a": str(tmp_path / "new/a.tar")}


def test_a_prefix_is_replaced_without_the_catalog(planned: RunConfig, tmp_path: Path) -> None:
    Path(planned.catalog).unlink()
    moved = planned.model_copy(update={"source_prefix": "s3://bucket/new/"})
    addresses = find_addresses(moved, planned, Store(planned.output))
    assert addresses == {name: f"s3://bucket/new/{name}.tar" for name in "abcd"}
    with pytest.raises(CatalogError):
        find_addresses(planned, planned, Store(planned.output))
