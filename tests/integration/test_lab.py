"""Use JupyterLab as a person does: start it by the command of `make lab`, execute `run.ipynb` in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from selection_factory import make_samples
from waiting import wait_until

from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.totals import Totals
from audiopipe.store.objects import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FrameLocator, Page

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
BROWSER = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
TOKEN = "lab-of-the-tests"
MINUTE = 60_000  # in milliseconds
# Bokeh draws on a canvas, so the names of tasks are read from its data sources.
TASKS = """
() => Bokeh.documents.flatMap(document => [...document._all_models.values()])
  .filter(model => model.type == "ColumnDataSource")
  .flatMap(source => Array.from(source.data.name ?? []))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


@dataclass(frozen=True)
class Lab:
    """A JupyterLab on a folder with `notebooks/` and the tiny corpus in `demo/corpus`, as in the repository."""

    folder: Path
    port: int

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}{'&' if '?' in path else '?'}token={TOKEN}"


def lab_command() -> list[str]:
    (line,) = re.findall(r"^\t(\$\(BIN\)/jupyter lab .*)$", (ROOT / "Makefile").read_text(), re.M)
    return [word.replace("$(BIN)", str(ROOT / ".venv" / "bin")) for word in line.split()]


@pytest.fixture(scope="module")
def lab(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "demo").mkdir()
    (folder / "demo" / "corpus").symlink_to(tiny_corpus)
    write_long_notebook(folder / "notebooks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {name: str(folder / "home") for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    command = [*lab_command(), "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **folders, "JUPYTER_TOKEN": TOKEN}
        )
    lab = Lab(folder, port)
    try:
        wait_until(lambda: answers(lab, process), "JupyterLab answers", timeout_s=120, poll_s=0.5)
        yield lab
    finally:
        process.terminate()
        process.wait(timeout=60)


def write_long_notebook(notebooks: Path) -> None:
    """Copy `run.ipynb` with another output and one video in a shard, so that there is time to stop it."""
    content = nbformat.read(notebooks / "run.ipynb", as_version=4)
    (cell,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", ())]
    cell.source = cell.source.replace("demo/output", "demo/stopped").replace("shard_videos = 64", "shard_videos = 1")
    nbformat.write(content, notebooks / "stopped.ipynb")


def write_table_notebook(folder: Path) -> Path:
    """Write a notebook that shows the segments of an output; return the output's folder."""
    output = make_samples(str(folder / "samples")).root
    cell = "from audiopipe import Dataset\nfrom audiopipe.report.segment_table import segment_table\n\n"
    cell += f"segment_table(Dataset({str(output)!r}))"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)], metadata=kernel)
    nbformat.write(notebook, folder / "notebooks" / "table.ipynb")
    return Path(output)


def answers(lab: Lab, process: subprocess.Popen[bytes]) -> bool:
    """Check whether the server answers; fail if it has ended."""
    assert process.poll() is None, (lab.folder / "lab.log").read_text()
    try:
        with urllib.request.urlopen(lab.address("/api/status"), timeout=10):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        yield browser
        browser.close()


def open_notebook(lab: Lab, browser: Browser, notebook: str) -> Page:
    """Open a notebook in a new workspace and wait for its kernel."""
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.set_default_timeout(2 * MINUTE)
    page.goto(lab.address(f"/lab/workspaces/{notebook}/tree/{notebook}.ipynb?reset"))
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell")
    page.wait_for_selector("#jp-main-statusbar >> text=/Idle/")
    return page


def choose(page: Page, *path: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{path[0]}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(path[1])}$")).click()


def execute_until(page: Page, text: str) -> None:
    """Execute cells from the first one on until the output of a cell contains a text."""
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Escape")
    shown = page.locator(".jp-Notebook .jp-OutputArea-output", has_text=text)
    for _ in range(page.locator(".jp-Notebook .jp-Cell").count()):
        page.keyboard.press("Shift+Enter")
        page.wait_for_selector("#jp-main-statusbar >> text=/Idle/")
        page.wait_for_timeout(300)
        if shown.count():
            return
    shown.first.wait_for()


def select(page: Page, text: str) -> None:
    """Select the code cell that contains a text, in command mode."""
    page.locator(".jp-Notebook .jp-Cell.jp-CodeCell", has_text=text).click()
    page.keyboard.press("Escape")


def open_dask_panes(page: Page) -> list[FrameLocator]:
    """Let Dask's panel find the cluster of the kernel, and open two of its panes."""
    page.locator('.jp-SideBar [data-id="dask-dashboard-launcher"]').click()
    page.locator("[title='Auto-detect dashboard URL']").click()
    for pane in ("Progress", "Task Stream"):
        page.locator(".dask-DashboardListing-item", has_text=re.compile(f"^{pane}$", re.IGNORECASE)).click()
    return [page.frame_locator(f"iframe[src*='individual-{name}']") for name in ("progress", "task-stream")]


def show_tab(page: Page, tab: str) -> None:
    page.locator(".lm-DockPanel-tabBar .lm-TabBar-tabLabel", has_text=tab).click()


def test_a_lab_run_shows_the_dataset_and_dask_panes_the_cluster(lab: Lab, browser: Browser, tmp_path: Path) -> None:
    page = open_notebook(lab, browser, "run")
    execute_until(page, "Dask dashboard (while the run lasts)")
    for pane in open_dask_panes(page):
        pane.locator("canvas").first.wait_for(state="attached")
    show_tab(page, "run.ipynb")
    choose(page, "Run", "Run Selected Cell and All Below")
    show_tab(page, "Task Stream")
    stream = page.frame(url=re.compile("individual-task-stream"))
    assert stream is not None
    stream.wait_for_function(f"() => ({TASKS})().some(name => String(name).startsWith('shard '))", timeout=2 * MINUTE)
    page.screenshot(path=tmp_path / "panes.png")
    show_tab(page, "run.ipynb")
    done = page.locator(".jp-Notebook .jp-OutputArea-output", has_text="where     shards")
    done.wait_for(timeout=4 * MINUTE)
    page.screenshot(path=tmp_path / "done.png")
    total = Totals.of(commit.result for commit in read_commits(Store(str(lab.folder / "demo" / "output"))).values())
    summary = done.inner_text()
    assert f"{total.videos - total.videos_failed:,} done, {total.videos_failed:,} failed" in summary
    assert f"{total.segments_kept:,} kept" in summary
    shown = " ".join(page.locator(".jp-Notebook").inner_text().split())
    assert f"{total.videos - total.videos_failed} / {total.videos} videos done" in shown
    assert "100 % processed · run done" in shown
    assert not page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.stderr"]').count()


def test_the_stop_button_ends_a_run_and_the_same_cell_resumes_it(lab: Lab, browser: Browser) -> None:
    page = open_notebook(lab, browser, "stopped")
    execute_until(page, "Dask dashboard (while the run lasts)")
    select(page, "session.run_shards")
    page.keyboard.press("Shift+Enter")
    output = Store(str(lab.folder / "demo" / "stopped"))
    wait_until(lambda: read_commits(output), "a shard is committed", timeout_s=120, poll_s=0.2)
    page.locator('.jp-NotebookPanel-toolbar [data-command="notebook:interrupt-kernel"]').first.click()
    stopped = page.locator(".jp-Notebook .jp-OutputArea-output", has_text="Stopped: committed shards are safe")
    stopped.wait_for()
    assert "Traceback" not in stopped.inner_text()
    before = read_commits(output)
    select(page, "session.run_shards")
    choose(page, "Run", "Run Selected Cell and All Below")
    page.locator(".jp-Notebook .jp-OutputArea-output", has_text="where     shards").wait_for(timeout=4 * MINUTE)
    after = read_commits(output)
    assert len(after) > len(before)
    assert {shard: after[shard] for shard in before} == before


def test_the_kernel_answers_for_all_segments_of_a_table(lab: Lab, browser: Browser) -> None:
    dataset = Dataset(str(write_table_notebook(lab.folder)))
    page = open_notebook(lab, browser, "table")
    execute_until(page, "All 80 segments, read from the dataset page by page.")
    page.fill(".browse input[type=search]", "text 1")
    status = page.locator(".browse .status")
    matching = dataset.to_pandas(where="kept AND contains(text, 'text 1')")
    status.filter(has_text=f"{len(matching)} segments match").wait_for()
    assert page.locator(".browse button[aria-label^='Play ']").count() == len(matching)
    page.locator(".browse .play").last.click()
    page.wait_for_function("document.querySelector('.browse audio')?.currentTime > 0.05")
    assert page.locator("tr.open .play").get_attribute("aria-label") == f"Play {matching['key'].iloc[-1]}"
    with page.expect_download() as download:
        page.click("text=/Download .* keys/")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[2].strip('"') for line in lines[1:]] == matching["key"].tolist()
    assert not page.locator(".jp-Notebook .jp-OutputArea-output", has_text="Error").count()
