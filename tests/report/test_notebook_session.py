"""The steps of `run.ipynb`: paths, preview, interrupts, and the last cell, which reports the run."""

from types import SimpleNamespace

import pytest

from audiopipe.report.notebook import cells, session


def test_in_jupyterlab_paths_start_at_the_repository(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "notebooks" / "run.ipynb"))
    assert cells.prepare() == str(tmp_path)


def test_under_papermill_paths_start_where_it_was_called(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert cells.prepare() == str(tmp_path / "notebooks")


def test_an_interrupted_kernel_says_how_to_resume(monkeypatch):

    def interrupt(*arguments, **parameters):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run", interrupt)
    monkeypatch.setattr(session, "_Live", lambda: None)
    with pytest.raises(KeyboardInterrupt) as caught:
        session.run_shards(SimpleNamespace(config=None), None)
    assert caught.value._render_traceback_() == [f"Stopped: {caught.value}"]
    assert "execute this cell again to continue" in str(caught.value)


def test_a_preview_writes_nothing(tmp_path):
    from output_factory import config, corpus

    preview = session.preview(config(corpus(tmp_path / "corpus"), tmp_path / "out"))
    assert preview.shards_left == 3
    assert "committed before" in preview._repr_html_()
    assert not (tmp_path / "out").exists()


def test_two_threads_of_a_core_count_as_one(tmp_path, monkeypatch):
    for cpu, siblings in enumerate(("0,2", "1", "0,2")):
        (tmp_path / f"cpu{cpu}").write_text(siblings + "\n")
    monkeypatch.setattr(session, "SIBLINGS", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(session.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert session.count_cores() == 3  # cpu3 has no entry, as in some containers


def test_the_last_cell_of_an_unfinished_run_fails_naming_the_rest(capsys):
    from audiopipe.dataset.totals import Totals
    from audiopipe.driver.run import RunSummary
    from audiopipe.ledger import RunStatus

    failed = {"en-000000": "StoreError: 503"}
    summary = RunSummary("r", "o", RunStatus.INCOMPLETE, Totals(), Totals(), 2, failed, 1.0)
    with pytest.raises(session.RunIncomplete, match=r"2 of 2 shards not committed.*en-000000: StoreError: 503"):
        session.finish(summary, None)
    assert "NOT DONE" in capsys.readouterr().out


def test_too_many_failed_videos_are_an_error_only_to_papermill(capsys, monkeypatch):
    from audiopipe.dataset.totals import Totals
    from audiopipe.driver.run import RunSummary
    from audiopipe.ledger import RunStatus

    total = Totals(shards=1, videos=4, videos_failed=2)
    total.errors["BadTar"] = 2
    summary = RunSummary("r", "o", RunStatus.DONE, total, total, 1, {}, 1.0, max_failed_share=0.1)
    monkeypatch.setenv("JPY_SESSION_NAME", "run.ipynb")
    session.finish(summary, None)
    assert "2 of 4 videos failed" in capsys.readouterr().out
    monkeypatch.delenv("JPY_SESSION_NAME")
    with pytest.raises(session.TooManyFailed, match="2 of 4 videos failed"):
        session.finish(summary, None)
