"""The guide covers what the code has, builds without a warning, and has no broken link."""

import html
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from guide import GUIDE, PAGES, ROOT

import audiopipe
from audiopipe import errors
from audiopipe.kernels import METRICS
from audiopipe.scorers.registry import known_columns

sys.path.insert(0, str(GUIDE / "_extensions"))
import generated_text

METRICS_PAGE, SCORERS_PAGE = (PAGES[f"notebooks/guide/{name}.md"] for name in ("metrics", "scorers"))


def sections(page: str) -> dict[str, str]:
    """Return the text of each section whose heading is the name of a column."""
    return dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))


def test_every_metric_has_a_definition_a_source_and_good_values() -> None:
    texts = sections(METRICS_PAGE)
    assert texts.keys() == METRICS.keys()
    for name, text in texts.items():
        assert f"<!-- generated: column {name} -->" in text
        assert "*Good\nvalues:*" in text or "*Good values:*" in text, name
        assert re.search(rf"^\| `{name}` \|", METRICS_PAGE, re.MULTILINE), f"{name} has no usual values"


def test_every_column_of_a_scorer_has_a_section() -> None:
    columns = {column.name for scorer, column in known_columns() if scorer.name != "signal"}
    assert sections(SCORERS_PAGE).keys() == columns


def test_pages_have_every_word_of_the_glossary() -> None:
    pages = "\n".join(generated_text.fill_in(text) for text in PAGES.values())
    assert "<!-- generated" not in pages
    assert set(re.findall(r"^### (\w+)$", pages, re.MULTILINE)) >= set(errors.__all__)
    kinds = {"term": "term", "exit code": "exit", "drop reason of a segment": "drop", "parameter": "parameter"}
    for entry in generated_text.entries():
        if entry.kind in kinds:
            assert f"[`{entry.word}`]{{#{kinds[entry.kind]}-{entry.word.replace('_', '-')}}}" in pages
    assert "Threshold: `min_snr_db`, by default `5.0`." in pages


def test_the_reference_has_every_public_name() -> None:
    page = PAGES["notebooks/guide/reference/python.md"]
    names = set(re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)", page, re.MULTILINE))
    assert names >= set(audiopipe.__all__) - {"__version__", "errors", "kernels"}
    assert names >= set(audiopipe.kernels.__all__) - {"INT16_FULL_SCALE", "METRICS"}


def test_profiles_of_the_cluster_page_have_keys_that_exist() -> None:
    profiles = yaml.safe_load((ROOT / "cluster/profiles.yaml").read_text())
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGES["notebooks/guide/how-to/cluster.md"], re.DOTALL | re.MULTILINE)
    examples = {name: keys for block in blocks for name, keys in yaml.safe_load(block).items()}
    assert examples.keys() >= {"ssh", "slurm", "kubernetes", "ec2", "existing"}
    for name, keys in examples.items():
        assert keys.keys() <= profiles[name].keys()


def test_the_monitor_page_has_every_metric_of_prometheus() -> None:
    source = (ROOT / "audiopipe/ledger/metrics.py").read_text()
    counters, gauges = (re.findall(rf'self\._{kind}\(\s*"(\w+)"', source) for kind in ("counter", "gauge"))
    names = {*(f"audiopipe_{name}_total" for name in counters), *(f"audiopipe_{name}" for name in gauges)}
    listed = set(re.findall(r"`(audiopipe_\w+)`", PAGES["notebooks/guide/how-to/monitor.md"]))
    assert listed == names | {"audiopipe_shard_duration_seconds", "audiopipe_run_info"}


def test_the_start_page_lists_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    rows = re.findall(r"^\| (`[^|]+`) \|", PAGES["notebooks/guide/start.md"], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(extras) - {"all", "dev"}


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_all_links_work(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        str(GUIDE),
        str(tmp_path),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) >= len(PAGES) - 1
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    external = (tmp_path / "external_links.txt").read_text()
    for page, text in pages.items():
        assert not re.findall(r'\bsrc="(?:https?:)?//[^"]*"', text), f"{page.name} loads from another host"
        for address in map(html.unescape, re.findall(r'\bhref="([^"]+)"', text)):
            if re.match(r"[a-z]+:", address):
                continue
            name, _, anchor = unquote(address).partition("#")
            target = (page.parent / name.partition("?")[0]).resolve() if name else page
            assert target.exists(), f"{page.name}: {address}"
            if anchor and target in anchors:
                assert anchor in anchors[target], f"{page.name}: {address}"
    assert all(line.startswith("http") for line in external.splitlines())
