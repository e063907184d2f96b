"""Reports are made of an output alone; notebooks are set to an output; neither counts as a part of it."""

import shutil
from pathlib import Path

import nbformat
import pytest
from output_factory import config, corpus, make_output

from audiopipe.config import RunConfig
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.report.notebook.packaged import copy_for_output
from audiopipe.report.packaged_notebooks import packaged_notebooks
from audiopipe.report.reports import make_reports


def parameters_of(path: Path) -> dict[str, object]:
    """Execute the parameters cell of a notebook."""
    cells = nbformat.read(path, as_version=4).cells
    (source,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    values: dict[str, object] = {}
    exec(source, {}, values)
    return values


def test_notebooks_are_set_to_an_output_and_its_parameters(dataset: str, tmp_path: Path) -> None:
    paths = {path.stem: path for path in copy_for_output(dataset, tmp_path / "lab")}
    assert set(paths) == {"quality", "progress", "explore", "select", "run"}
    assert {parameters_of(path)["output"] for path in paths.values()} == {dataset}
    run = RunConfig.of(**parameters_of(paths["run"]))
    assert run.max_loudness_lufs == -14.85, "a parameter that the cell does not list"
    assert run.catalog.endswith("catalog.parquet")


def test_edited_notebooks_are_kept_unless_they_are_to_be_replaced(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "quality.ipynb").write_text("edited")
    copy_for_output(dataset, tmp_path)
    assert (tmp_path / "quality.ipynb").read_text() == "edited"
    copy_for_output(dataset, tmp_path, overwrite=True)
    assert parameters_of(tmp_path / "quality.ipynb")["output"] == dataset


def test_the_package_has_the_notebooks() -> None:
    assert {"run", "progress", "quality", "explore", "select", "estimate", "bench"} == set(packaged_notebooks())


def test_reports_of_nothing_or_with_a_secret_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"has no _run\.json"):
        make_reports(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="contains a password"):
        make_reports("s3://key:secret@bucket/out")
    with pytest.raises(ConfigError, match="unknown report 'qualty': did you mean 'quality'"):
        make_reports(str(tmp_path), names=["qualty"])


def test_without_a_ledger_there_is_no_progress_report(dataset: str, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(dataset, copy, ignore=shutil.ignore_patterns("_ledger*"))
    reports = []
    index = make_reports(str(copy), names=["progress"], on_report=reports.append)
    assert [(report.name, report.address) for report in reports] == [("progress", None)]
    assert "ledger" in str(reports[0].problem)
    assert Path(index) == copy / "reports" / "index.html"
    assert verify(str(copy)).findings == ()
    assert collect_garbage(str(copy)).objects == {}


@pytest.mark.slow
def test_the_reports_of_an_output_and_an_index_are_written(ledger: str, tmp_path: Path) -> None:
    reports = []
    index = make_reports(ledger, str(tmp_path / "pages"), on_report=reports.append)
    assert [(report.name, report.problem) for report in reports] == [("progress", None), ("quality", None)]
    assert "2 reports of 1 run" in Path(index).read_text(encoding="utf-8")
    for report in reports:
        assert Path(str(report.address)).parent == tmp_path / "pages"
        assert Path(str(report.address)).stat().st_size > 10_000


@pytest.mark.slow
def test_a_report_that_fails_is_named_and_its_page_says_why(tmp_path: Path) -> None:
    store = make_output(config(corpus(tmp_path / "c", videos=1, missing=False), tmp_path / "out"))
    shutil.rmtree(tmp_path / "out" / "en")
    reports = []
    make_reports(store.url, names=["quality"], on_report=reports.append)
    assert reports[0].problem
    assert "What to do:" in Path(str(reports[0].address)).read_text(encoding="utf-8")
