"""A notebook's parameters come from the cells with papermill's tags, whatever their text; an error names the cell."""

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from audiopipe.config import RunConfig
from audiopipe.errors import ConfigError
from audiopipe.report.notebook import cells

KNOWN = ("catalog", "output", "workers", "min_snr_db", "language")
DEFAULTS = "import datetime\ncatalog, output = 'c', 'o'\nif True:\n    workers: int = 2\n"
READ = "read()"


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Return a function that executes cells in IPython, in a notebook of those cells, and returns what was read.

    A cell is a source or a pair of tag and source; `saved` is what the notebook's file has, by default those cells.
    """
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    monkeypatch.setattr(cells, "get_ipython", lambda: shell)
    monkeypatch.setattr(cells, "_CELL_IDS", {})
    monkeypatch.delenv(cells.JUPYTERLAB, raising=False)

    def execute(*sources, saved=None, ids=False, known=KNOWN):
        pairs = [source if isinstance(source, tuple) else (None, source) for source in sources]
        if saved is not None or ids:
            write_file(tmp_path / "n.ipynb", saved or pairs)
            monkeypatch.setenv(cells.JUPYTERLAB, str(tmp_path / "n.ipynb"))
        results = []
        shell.user_ns["read"] = lambda: results.append(cells.read_parameters(known))
        for number, (_, source) in enumerate(pairs):
            result = shell.run_cell(source, store_history=True, cell_id=f"id{number}" if ids else None)
            if result.error_in_exec is not None:
                raise result.error_in_exec
        return results[-1]

    return execute


def write_file(path, pairs):
    content = [
        {"cell_type": "code", "id": f"id{number}", "source": [source], "metadata": {"tags": [tag] if tag else []}}
        for number, (tag, source) in enumerate(pairs)
    ]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "x"}, *content]}))


def test_without_tags_all_cells_before_count(notebook):
    assert notebook(DEFAULTS, "_scratch = 1\nfor i in range(3):\n    pass", READ) == {
        "catalog": "c",
        "output": "o",
        "workers": 2,
    }


def test_papermills_cell_overrides_the_one_before_it(notebook):
    inserted = "# Parameters\nworkers = 3\nlanguage = 'en'\nPAPERMILL_INPUT_PATH = 'run.ipynb'\n"
    values = notebook("scratch = 1", DEFAULTS, inserted, READ)
    assert values == {"catalog": "c", "output": "o", "workers": 3, "language": "en"}


def test_in_jupyterlab_the_tag_decides(notebook):
    pairs = [(None, "scratch = 1"), ("parameters", DEFAULTS), ("injected-parameters", "workers = 3"), (None, READ)]
    assert notebook(*pairs, saved=pairs) == {"catalog": "c", "output": "o", "workers": 3}


def test_an_edit_that_is_not_saved_counts(notebook):
    saved = [("parameters", DEFAULTS), (None, READ)]
    assert notebook(DEFAULTS + "min_snr_db = 10", READ, saved=saved)["min_snr_db"] == 10


def test_a_name_that_a_correction_removed_no_longer_counts(notebook):
    pairs = [("parameters", DEFAULTS + "wrokers = 1"), (None, READ)]
    with pytest.raises(ConfigError, match="wrokers"):
        notebook(*pairs, ids=True)
    assert notebook(("parameters", DEFAULTS), (None, READ), ids=True) == {"catalog": "c", "output": "o", "workers": 2}


def test_an_unknown_name_is_an_error_that_names_the_cell(notebook):
    with pytest.raises(ConfigError, match=r"line 2 of the cell In \[2\]: unknown parameter 'wrokers': did you mean 'w"):
        notebook(DEFAULTS, "# Parameters\nwrokers = 1", READ)


def test_an_invalid_value_is_an_error_that_names_the_cell(notebook, monkeypatch):
    monkeypatch.setattr(cells, "read_parameters", lambda known: {"catalog": "c", "output": "o", "window_s": 100})
    with pytest.raises(ConfigError, match=r"window_s.*in the cell with the tag 'parameters'"):
        cells.read_config()


def test_a_cell_with_magic_commands_is_read(notebook):
    assert notebook("%env X=1\noutput = 'o'\n!true", READ) == {"output": "o"}


def test_outside_a_notebook_reading_parameters_is_refused(monkeypatch):
    monkeypatch.setattr(cells, "get_ipython", lambda: None)
    with pytest.raises(ConfigError, match="works only in a notebook"):
        cells.read_parameters()


@pytest.mark.parametrize("word", ["none", "None", " NULL ", "off", "", False, None])
def test_a_word_switches_a_threshold_off_everywhere(word):
    fields = ("min_snr_db", "max_clipping_ratio", "duplicate_similarity", "normalize_lufs", "workers")
    config = RunConfig.of(catalog="c", output="o", **dict.fromkeys(fields, word))
    assert [getattr(config, name) for name in fields] == [None] * len(fields)


@pytest.mark.parametrize("change", [{"min_snr_db": True}, {"window_s": "none"}, {"ledger": ""}, {"shard_mb": False}])
def test_what_cannot_be_off_is_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        RunConfig.of(catalog="c", output="o", **change)
