"""The summary of a run in a few lines."""

from collections import Counter

from audiopipe.dataset.totals import Totals
from audiopipe.driver.run import RunSummary
from audiopipe.ledger import RunStatus
from audiopipe.report.summary import summary_lines


def totals(**changes):
    result = Totals(**({"shards": 3, "videos": 10, "videos_failed": 2, "segments": 50, "segments_kept": 45} | changes))
    result.audio_s, result.bytes_out = 3600.0, 5_000_000
    result.drops = Counter({"too_quiet": 1, "noisy": 4})
    result.errors = Counter({"BadTar": 2})
    result.stage_s = Counter({"decode": 30.0, "fetch": 2.0, "score": 8.0})
    result.spans = [("2026-01-01T00:00:00Z", "2026-01-01T00:00:45Z")]
    return result


def summary(status=RunStatus.DONE, new=None, failed=None, **more):
    new = totals() if new is None else new
    more = {"max_failed_share": 0.2} | more
    return RunSummary("r", "s3://bucket/out", status, totals(), new, 3, failed or {}, 60.0, **more)


def test_five_lines_summarize_a_finished_run():
    lines = summary_lines(summary())
    assert len(lines) == 5
    assert "8 done, 2 failed: 2 BadTar" in lines[0]
    assert "45 kept (90 %), 5 dropped: 4 noisy, 1 too quiet" in lines[1]
    assert "1.00 h of audio in 45 s of work: 80 x real time; the session took 1 min" in lines[2]
    assert lines[3].index("fetch 2.0 s") < lines[3].index("decode 30 s")
    assert "bottleneck: decode (75 % of the work)" in lines[3]
    assert "s3://bucket/out" in lines[4]


def test_a_run_with_nothing_to_do_is_reported():
    assert "nothing to do: all 3 shards were committed before" in summary_lines(summary(new=Totals()))[2]


def test_an_unfinished_run_names_what_is_missing_and_what_to_do():
    failed = {"en-000001": "StoreError: 503"}
    unfinished = RunSummary("r", "o", RunStatus.INCOMPLETE, totals(shards=2), totals(shards=2), 3, failed, 60.0)
    last = summary_lines(unfinished)[-1]
    assert "1 of 3 shards not committed" in last
    assert "en-000001: StoreError: 503" in last
    assert "run the same again" in last


def test_too_many_failed_videos_are_named_by_reason():
    accepted, failed = summary(), summary(max_failed_share=0.19)
    assert (accepted.exit_code, failed.exit_code) == (3, 5)
    last = summary_lines(failed)[-1]
    assert last.startswith("FAILED    2 of 10 videos failed, more than max_failed_share (0.19)")
    assert "the most frequent reason is BadTar (2): `audiopipe explain BadTar`" in last
    whole = RunSummary("r", "o", RunStatus.DONE, totals(videos_failed=0), totals(), 3, {}, 60.0, max_failed_share=0.0)
    assert whole.exit_code == 0


def test_a_summary_names_retired_workers_and_why_the_run_stopped():
    reason = "BrokenWorker: its disk is full"
    stopped = summary(
        RunStatus.INCOMPLETE,
        workers_retired={"gpu-0": reason},
        stopped=f"no worker can work: {reason}",
        unfinished_code=2,
    )
    assert stopped.exit_code == 2
    *_, retired, last = summary_lines(stopped)
    assert retired == f"retired   worker gpu-0: {reason}"
    assert f"the run stopped early: no worker can work: {reason}" in last
    assert "correct this, then run the same to resume" in last
