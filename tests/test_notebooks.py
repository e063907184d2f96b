"""The notebooks: thin, stripped, executed by papermill and opened in a browser."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.totals import Totals
from audiopipe.ledger import RunStatus, open_ledger
from audiopipe.report.benchmarks import PARAMETERS as BENCH
from audiopipe.report.dataset_tables import PARAMETERS as QUALITY
from audiopipe.report.explore import PARAMETERS as EXPLORE
from audiopipe.report.export import export_notebook, read_cell_text
from audiopipe.report.notebook.selection import PARAMETERS as SELECT
from audiopipe.report.progress import PARAMETERS as PROGRESS
from audiopipe.store.objects import Store

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
CHROMIUM = shutil.which("chromium")
BROWSER = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--mute-audio"),
)
VIEWS = {"desktop": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}


def source(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(name):
    return [cell for cell in source(name).cells if cell.cell_type == "code"]


def defaults(name):
    """Read the values that the parameters cell assigns."""
    (cell,) = [cell for cell in code_of(name) if "parameters" in cell.metadata.get("tags", ())]
    assigned = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}


def papermill(name, out, cwd, **parameters):
    """Execute a notebook as a scheduler would and return the finished process."""
    chosen = [part for key, value in parameters.items() for part in ("-p", key, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(FOLDER / f"{name}.ipynb"), str(out), *chosen]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, check=False)


@dataclass(frozen=True)
class Executed:
    """A run of the tiny corpus: the folder in which papermill was called, and the process of each notebook."""

    folder: Path
    processes: dict[str, subprocess.CompletedProcess[str]]

    @property
    def output(self) -> str:
        return str(self.folder / "out")

    def text(self, name: str) -> str:
        """Read the text that an executed notebook shows."""
        page = export_notebook(self.folder / f"{name}.ipynb", self.folder / f"{name}.html").read_text(encoding="utf-8")
        page = re.sub(r"<style>.*?</style>|data:[^\"]*", " ", page, flags=re.DOTALL)
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))

    def segments(self) -> pd.DataFrame:
        return Dataset(self.output).to_pandas()


@pytest.fixture(scope="session")
def executed(tiny_corpus, tmp_path_factory):
    """The notebooks `run`, `progress` and `quality`, executed with relative paths outside the repository."""
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "corpus").symlink_to(tiny_corpus)
    run = papermill(
        "run",
        folder / "run.ipynb",
        folder,
        catalog="corpus/catalog.parquet",
        output="out",
        workers=1,
        shard_videos=4,
        max_failed_share=1,
    )
    with ThreadPoolExecutor(2) as pool:
        progress = pool.submit(papermill, "progress", folder / "progress.ipynb", folder, output="out")
        quality = pool.submit(papermill, "quality", folder / "quality.ipynb", folder, output="out", examples_per_kind=2)
    return Executed(folder, {"run": run, "progress": progress.result(), "quality": quality.result()})


@pytest.fixture(scope="session")
def all_executed(executed):
    """That run with `explore.ipynb`, on a failed video too, `bench.ipynb` and `select.ipynb`."""
    folder, benchmarks = executed.folder, FOLDER.parent / "reports" / "benchmarks"
    results = [commit.result for commit in read_commits(Store(executed.output)).values()]
    letters = {letter.error_type: letter.video_id for result in results for letter in result.dead_letters}
    with ThreadPoolExecutor(2) as pool:
        explore = pool.submit(papermill, "explore", folder / "explore.ipynb", folder, output="out")
        bench = pool.submit(papermill, "bench", folder / "bench.ipynb", folder, folder=benchmarks)
        where = {"output": "out", "dest": "selection", "where": "snr_db >= 20", "workers": 1}
        select = pool.submit(papermill, "select", folder / "select.ipynb", folder, **where)
        processes = {"explore": explore.result(), "bench": bench.result(), "select": select.result()}
    processes["broken"] = papermill(
        "explore", folder / "broken.ipynb", folder, output="out", youtube_id=letters["TruncatedMedia"]
    )
    return Executed(folder, executed.processes | processes)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_thin(name):
    cells = code_of(name)
    assert sum(len([line for line in cell.source.splitlines() if line.strip()]) for cell in cells) <= 40
    tree = [ast.parse(cell.source) for cell in cells]
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If)
    assert not [node for cell in tree for node in ast.walk(cell) if isinstance(node, definitions)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stripped_and_asks_for_the_usual_kernel(name):
    notebook = source(name)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(name))
    assert all(isinstance(value, (str, int, float, type(None))) for value in defaults(name).values())


def test_parameters_of_run_are_config_fields_with_their_defaults():
    parameters = defaults("run")
    assert parameters["catalog"] == "demo/corpus/catalog.parquet"
    config = RunConfig.of(**parameters)
    assert config == RunConfig.of(catalog=config.catalog, output=config.output)


def test_the_parameters_of_the_reports_are_those_that_they_read():
    assert set(defaults("progress")) == set(PROGRESS)
    assert set(defaults("quality")) == set(QUALITY)
    assert set(defaults("explore")) == set(EXPLORE)
    assert set(defaults("bench")) == set(BENCH)
    assert set(defaults("select")) == set(SELECT)


def test_every_notebook_ends_well(executed):
    for name, process in executed.processes.items():
        assert process.returncode == 0, f"{name}: {process.stderr[-2000:]}"


def test_the_run_notebook_shows_the_plan_the_progress_and_the_summary(executed):
    total = Totals.of(commit.result for commit in read_commits(Store(executed.output)).values())
    text = executed.text("run")
    assert f"all {total.videos} {total.shards} 0" in text
    assert f"{total.videos_done} / {total.videos} videos done" in text
    assert "Dask dashboard" in text
    assert "Done: every planned shard is committed." in text


def test_the_summary_cell_prints_what_the_tables_hold(executed):
    rows = executed.segments()
    kept = int(rows["kept"].sum())
    lines = read_cell_text(executed.folder / "run.ipynb", "summary").splitlines()
    assert len(lines) == 5
    assert f"{kept} kept" in lines[1]
    for reason, count in rows["drop_reason"].value_counts().items():
        assert f"{count} {reason.replace('_', ' ')}" in lines[1]


def test_the_progress_report_shows_the_ledger(executed):
    with open_ledger(None, executed.output, create=False) as ledger:
        run = ledger.run()
        assert run is not None
        (english,) = ledger.languages(run.run_id)
        errors = ledger.errors(run.run_id)
    assert run.status is RunStatus.DONE
    text = executed.text("progress")
    assert f"{english.processed - english.failed} / {english.total_videos}" in text
    assert f"{english.kept} / {english.segments}" in text
    assert f"Videos that failed permanently: {english.failed}" in text
    for error in errors:
        assert str(error.error_type) in text
    assert "is the bottleneck" in text


def test_the_quality_report_shows_the_tables(executed):
    rows = executed.segments()
    kept = rows[rows["kept"]]
    text = executed.text("quality")
    assert f"{len(kept)} / {len(rows)}" in text
    for metric, digits in (("loudness_lufs", 1), ("snr_db", 1)):
        assert f"{kept[metric].median():.{digits}f}".replace("-", "−") in text


@pytest.mark.slow
def test_a_good_and_a_broken_video_are_explored(all_executed):
    for name, process in all_executed.processes.items():
        assert process.returncode == 0, f"{name}: {process.stderr[-2000:]}"
    good, broken = all_executed.text("explore"), all_executed.text("broken")
    assert "The video passed every stage" in good
    assert "Same result as in the output" in good
    assert "Stopped at decode : TruncatedMedia." in broken
    assert "What to do:" in broken
    assert "Traceback" not in broken


@pytest.mark.slow
def test_the_select_notebook_shows_before_and_after(all_executed):
    rows, text = all_executed.segments(), all_executed.text("select")
    chosen = int((rows["kept"] & (rows["snr_db"] >= 20)).sum())
    assert len(Dataset(str(all_executed.folder / "selection")).to_pandas()) == chosen
    assert f"all {int(rows['kept'].sum())} {chosen} " in text
    assert "snr_db &gt;= 20" in text
    assert "quality report" in text


@pytest.mark.parametrize("name", ["progress", pytest.param("run", marks=pytest.mark.slow)])
def test_an_unknown_parameter_fails_whatever_the_first_cell_is(name, tmp_path, monkeypatch):
    notebook = source(name)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    values = defaults(name)
    cell.source = f"{', '.join(values)} = {', '.join(map(repr, values.values()))}"
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(sys.modules[__name__], "FOLDER", tmp_path)
    process = papermill(name, tmp_path / "out.ipynb", tmp_path, outptu="x")
    assert process.returncode == 1
    assert "line 2 of the cell In [2]: unknown parameter 'outptu': did you mean 'output'?" in process.stderr


@pytest.mark.slow
def test_a_second_run_does_nothing_and_says_so(executed):
    second = executed.folder / "second.ipynb"
    parameters = {"catalog": "corpus/catalog.parquet", "output": "out", "shard_videos": 4, "max_failed_share": 1}
    process = papermill("run", second, executed.folder, **parameters)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "nothing to do: all" in read_cell_text(second, "summary")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
@pytest.mark.parametrize("name", ["run", "progress", "quality", "explore", "broken", "bench", "select"])
def test_a_report_opens_in_a_browser_without_network_or_errors(all_executed, name):
    from playwright.sync_api import sync_playwright

    page_file = export_notebook(all_executed.folder / f"{name}.ipynb", all_executed.folder / "reports" / f"{name}.html")
    assert page_file.stat().st_size < 8_000_000
    loaded = re.findall(r'(?:src|href|xlink:href)="(https?://[^"]*)"', page_file.read_text(encoding="utf-8"))
    assert all(address.startswith("http://127.0.0.1") for address in loaded), "only the dashboard's link"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        for width, scheme in VIEWS.values():
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            problems: list[str] = []
            page.on("console", lambda message, texts=problems: texts.append(message.text))
            page.on("pageerror", lambda error, texts=problems: texts.append(str(error)))
            page.on("request", lambda request, urls=problems: _record_remote(request.url, urls))
            page.on("requestfailed", lambda request, urls=problems: urls.append(request.url[:100]))
            page.goto(page_file.as_uri())
            page.wait_for_function(PLAYERS_LOADED, timeout=60_000)
            assert problems == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.title().endswith("· audiopipe")
            players = page.evaluate("[...document.querySelectorAll('audio')].map(player => player.duration)")
            assert len(players) >= 4 if name == "quality" else len(players) == (name == "explore")
            assert all(0 < seconds < 13 for seconds in players)
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_moving_a_threshold_keeps_what_the_tables_say(executed):
    from playwright.sync_api import sync_playwright

    page_file = export_notebook(executed.folder / "quality.ipynb", executed.folder / "thresholds.html")
    rows = executed.segments()
    limit = round(float(rows[rows["kept"]]["snr_db"].median()), 1)
    kept = rows["kept"] & ~(rows["snr_db"] < limit)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        page = browser.new_page()
        page.goto(page_file.as_uri())
        assert page.inner_text("[data-result=segments]") == f"{int(rows['kept'].sum())} / {len(rows)}"
        page.fill("input[type=number][aria-label='min_snr_db value']", str(limit))
        assert page.inner_text("[data-result=segments]") == f"{int(kept.sum())} / {len(rows)}"
        assert page.inner_text("[data-result=hours]") == f"{rows[kept]['duration_s'].sum() / 3600:.2f} h"
        assert f"min_snr_db={limit}" in page.inner_text("[data-result=parameters]")
        page.uncheck("input[type=checkbox][aria-label='min_snr_db on']")
        no_limit = rows["kept"] | (rows["drop_reason"] == "noisy")
        assert page.inner_text("[data-result=segments]") == f"{int(no_limit.sum())} / {len(rows)}"
        page.click("text=Reset to this run's limits")
        assert page.inner_text("[data-result=change]") == "+0 / −0"
        player = page.locator("audio").first
        player.evaluate("player => player.play()")
        page.wait_for_function("document.querySelector('audio').currentTime > 0.2", timeout=60_000)
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_the_index_leads_to_every_report_of_the_run(all_executed):
    from playwright.sync_api import sync_playwright

    names = ["run", "progress", "quality", "explore", "bench"]
    folder = all_executed.folder / "linked" / "reports"
    for name in names:
        export_notebook(all_executed.folder / f"{name}.ipynb", folder / f"{name}.html")
    total = Totals.of(commit.result for commit in read_commits(Store(all_executed.output)).values())
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto((folder / "index.html").as_uri())
        text = page.inner_text("main")
        assert "✓ done" in text
        assert f"{total.segments_kept:,} / {total.segments:,}" in text
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        titles = page.locator("main a").all_inner_texts()
        assert len(titles) == len(names)
        for title in titles:
            page.click(f"a:text-is('{title}')")
            assert page.inner_text("h1") == title
            page.go_back()
        browser.close()


PLAYERS_LOADED = "[...document.querySelectorAll('audio')].every(player => player.readyState >= 1)"


def _record_remote(url: str, problems: list[str]) -> None:
    if not url.startswith(("file:", "data:")):
        problems.append(url)
