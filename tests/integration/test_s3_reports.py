"""Check reports in a bucket of a real S3 server: read from it, written to it, listed in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import nbformat
import pytest
from nbformat import v4
from output_factory import config, corpus, make_output
from s3_server import BUCKET, S3Server, faulty_proxy, s3_server  # noqa: F401 - the fixture

from audiopipe.report import page, quality
from audiopipe.report.export import export_notebook
from audiopipe.report.reports import Report, make_reports
from audiopipe.store.objects import Store

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def output(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:  # noqa: F811
    """Make a complete output in a bucket, with its keys in the environment."""
    from s3fs import S3FileSystem

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield make_output(config(corpus(tmp_path / "c", videos=4), f"s3://{BUCKET}/{uuid.uuid4().hex}"))
    S3FileSystem.clear_instance_cache()


def save_notebook(folder: Path, heading: str, *pieces: page.Html) -> Path:
    outputs = [v4.new_output("display_data", {"text/html": piece._repr_html_()}) for piece in pieces]
    cells = [v4.new_markdown_cell(f"# {heading}"), v4.new_code_cell("x", outputs=outputs)]
    nbformat.write(v4.new_notebook(cells=cells), folder / "saved.ipynb")
    return folder / "saved.ipynb"


@pytest.mark.slow
def test_the_reports_of_an_output_in_a_bucket_go_there(output: Store) -> None:
    reports: list[Report] = []
    index = make_reports(output.url, names=["quality"], on_report=reports.append)
    assert [(report.name, report.problem) for report in reports] == [("quality", None)]
    assert index == f"{output.url}/reports/index.html"
    assert set(output.list("reports")) == {"reports/index.html", "reports/quality.html"}


def test_an_index_in_a_bucket_links_its_reports_by_relative_paths(output: Store, tmp_path: Path) -> None:
    tables = quality.read_tables(output=output.url)
    export_notebook(
        save_notebook(tmp_path, "Quality report", quality.headline(tables)), f"{output.url}/reports/quality.html"
    )
    metadata = page.embed_metadata({"run_id": "tests", "state": "done"})
    export_notebook(save_notebook(tmp_path, "Run", metadata), f"{output.url}/reports/run.html")
    assert set(output.list("reports")) == {f"reports/{name}.html" for name in ("index", "quality", "run")}
    index = output.read("reports/index.html").decode()
    assert "2 reports of 1 run" in index
    assert f"{tables.total.segments_kept} / {tables.total.segments}" in index
    links = re.findall(r'<a href="([^"]+)"', index)
    pages = [urljoin("https://host/any/reports/index.html", link).removeprefix("https://host/any/") for link in links]
    assert pages == ["reports/quality.html", "reports/run.html"]
    assert "Quality report" in output.read(pages[0]).decode()
    # The content type makes browsers display the page.
    assert output.fs.info(output.path("reports/index.html"))["ContentType"] == "text/html"


@pytest.mark.slow
def test_a_bucket_without_list_permission_is_one_clear_error(
    s3_server: S3Server,  # noqa: F811
    output: Store,
    tmp_path: Path,
) -> None:
    with faulty_proxy(s3_server, 0.0, forbidden=b"list-type=2") as (endpoint, _):
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOKS / "quality.ipynb")]
        subprocess.run(
            [*command, str(tmp_path / "out.ipynb"), "-p", "output", output.url],
            env={**os.environ, **s3_server.environment(endpoint)},
            capture_output=True,
            check=False,
            timeout=200,
        )
    html = export_notebook(tmp_path / "out.ipynb", tmp_path / "out.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert f"PermanentStoreError listing {output.url}/" in text
    assert "not permitted (AccessDenied)" in text
    assert "What to do: " in text
    assert "Traceback" not in text
