"""The checks before a run: a catalog that cannot be read is an error; its warnings are left to the plan."""

import logging
from pathlib import Path

import pytest

from audiopipe.catalog.read import read_catalog
from audiopipe.cli.checks import check_run
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError


def test_warnings_of_a_catalog_are_left_to_the_plan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp3", "b.wma"):
        (folder / name).write_bytes(b"x")
    config = RunConfig.of(catalog=str(folder), output=str(tmp_path / "out"))
    check_run(config)
    assert not caplog.records
    read_catalog(config)
    assert "1 .wma" in caplog.text
    assert logging.getLogger("audiopipe.catalog").level == logging.NOTSET


def test_a_catalog_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="listed"):
        check_run(RunConfig.of(catalog=str(tmp_path / "none"), output=str(tmp_path / "out")))
    assert logging.getLogger("audiopipe.catalog").level == logging.NOTSET
