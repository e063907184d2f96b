"""Scorers run on emitted segments; what they do wrong stops the shard by their name."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import probe_scorers
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from factories import config, shard_of, wav_video
from shard_factory import NO_RULES, mixed, objects, run

from audiopipe import kernels
from audiopipe.dataset.run_record import open_run
from audiopipe.errors import BrokenWorker, ConfigError, ScorerError, WorkerFailure
from audiopipe.pipeline import scorers as pipeline_scorers
from audiopipe.pipeline.scorers import EmittedBatch, load_scorers
from audiopipe.pipeline.shard import process_shard
from audiopipe.scorers import registry
from audiopipe.scorers.scorer import SegmentInfo
from audiopipe.store.objects import Store
from audiopipe.types import Video

pytestmark = pytest.mark.usefixtures("no_leaks")
NAMES = [column.name for column in probe_scorers.Probe.columns if column.stored]


@pytest.fixture(autouse=True)
def probes(monkeypatch):
    monkeypatch.setattr(registry, "BUILT_IN", registry.BUILT_IN | probe_scorers.ALL)
    monkeypatch.setattr(pipeline_scorers, "_LOADED", {})


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return mixed(tmp_path_factory.mktemp("videos"))


def rows_of(folder, name="out"):
    return pq.read_table(folder / name / "en/segments_000000.parquet").to_pylist()


def batch_of(count):
    segments = [SegmentInfo("v", "en", 0.1, None, None)] * count
    return EmittedBatch([np.ones(1600 + i, np.int16) for i in range(count)], segments, 16_000)


def test_scores_are_those_of_the_emitted_audio(videos, tmp_path):
    result = run(tmp_path, shard_of(videos), scorers="signal,probe", **NO_RULES)
    rows = rows_of(tmp_path)
    kept = [row for row in rows if row["kept"]]
    assert len(kept) == result.segments_kept > 10
    with tarfile.open(tmp_path / "out/en/audio_000000.tar") as tar:
        for row in kept:
            body = json.loads(tar.extractfile(f"{row['key']}.json").read())
            for name in NAMES:
                value = "" if row[name] is None else row[name]
                assert body[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5))
            samples, _ = sf.read(io.BytesIO(tar.extractfile(f"{row['key']}.flac").read()), dtype="float32")
            signal = kernels.resample(torch.from_numpy(samples)[None, None], 16_000, 8_000)[0, 0]
            assert row["probe_samples"] == len(signal)
            assert row["probe_rms"] == pytest.approx(float(signal.square().mean().sqrt()), rel=1e-4)
            assert row["probe_ends"] == pytest.approx([float(half.mean()) for half in signal.chunk(2)], abs=1e-6)
            assert row["probe_loud"] == (row["probe_rms"] > 0.01)
            assert row["probe_text"] == (row["text"].upper() if row["text"] else None)
    assert "probe_secret" not in pq.read_schema(tmp_path / "out/en/segments_000000.parquet").names
    assert result.stage_items["probe"] == result.stage_items["score"]
    assert result.stage_s["probe"] > 0


def test_a_complete_video_fills_its_columns_and_speakers(videos, tmp_path):
    run(tmp_path, shard_of(videos), scorers="signal,probe", **NO_RULES)
    for video_id in ("long", "listed"):
        rows = [row for row in rows_of(tmp_path) if row["video_id"] == video_id]
        assert sorted(row["probe_rank"] for row in rows) == list(range(len(rows)))
        assert [row["speaker"] for row in rows] == [f"s{row['probe_rank'] % 2}" for row in rows]


def test_dropped_segments_have_scores_and_no_audio(videos, tmp_path):
    run(tmp_path, shard_of(videos), scorers="signal,probe", min_snr_db=1000.0)
    rows = rows_of(tmp_path)
    assert {row["kept"] for row in rows} == {False}
    scored = [row for row in rows if row["snr_db"] is not None]
    assert scored
    assert all(row["probe_rms"] is not None for row in scored)
    assert not (tmp_path / "out/en/audio_000000.tar").exists()


def test_segments_without_finite_samples_are_not_scored(tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 10).astype(np.float32)
    samples[: 5 * 16_000] = np.nan
    sf.write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    video = wav_video(tmp_path, "unused", 1.0)
    run(tmp_path, shard_of([Video("x", "en", str(tmp_path / "x.wav")), video]), scorers="signal,probe", **NO_RULES)
    bad, good, *_ = rows_of(tmp_path)
    assert (bad["drop_reason"], bad["probe_rms"], bad["probe_rank"]) == ("not_finite", None, None)
    assert good["probe_rms"] == pytest.approx(0.0707, rel=0.1)  # half of the band


def test_batches_and_decoders_do_not_change_bytes(videos, tmp_path):
    same = {"scorers": "signal,probe,simple", "keep_if": "probe_rank <> 1 AND probe_rms > 0", **NO_RULES}
    run(tmp_path, shard_of(videos), "1", **same, decoders=1, encoders=1)
    run(tmp_path, shard_of(videos), "2", **same, decoders=8, encoders=3, prefetch_videos=1, memory_mb=1)
    assert objects(tmp_path, "1") == objects(tmp_path, "2")


def test_the_condition_drops_by_its_failing_part(videos, tmp_path):
    condition = "probe_rank <> 1 and (speaker = 's0' or speaker is null) AND duration_s > 0"
    result = run(tmp_path, shard_of(videos), scorers="signal,probe", keep_if=condition, **NO_RULES)
    rows = [row for row in rows_of(tmp_path) if row["probe_rms"] is not None]
    reasons = config(scorers="signal,probe", keep_if=condition).keep_condition.parts
    assert len(reasons) == 3
    for row in rows:
        expected = reasons[0] if row["probe_rank"] == 1 else reasons[1] if row["speaker"] == "s1" else None
        assert (row["drop_reason"], row["kept"], row["tar_offset"] is None) == (
            expected,
            expected is None,
            expected is not None,
        )
    assert {name: count for name, count in result.drops.items() if name in reasons} == {
        reason: sum(row["drop_reason"] == reason for row in rows) for reason in reasons[:2]
    }


def test_thresholds_come_before_the_condition(videos, tmp_path):
    run(tmp_path, shard_of(videos), keep_if="duration_s < 0", **NO_RULES | {"min_snr_db": 1000.0})
    reasons = {row["drop_reason"] for row in rows_of(tmp_path) if row["snr_db"] is not None}
    assert reasons == {"noisy"}


def test_a_missing_value_keeps_the_segment(videos, tmp_path):
    result = run(tmp_path, shard_of(videos), keep_if="loudness_range_lu < -1 AND speaker = 'x'", **NO_RULES)
    for row in rows_of(tmp_path):
        if row["snr_db"] is not None and row["loudness_range_lu"] is None:
            assert row["kept"]
    assert result.segments_kept


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("probe_rmss > 1", "did you mean 'probe_rms'"),
        ("probe_rms >", "not valid SQL"),
        ("probe_secret[1] > 1", "unknown column"),
        ("dnsmos_ovrl >= 3", "unknown column 'dnsmos_ovrl'"),
        ("random() > 0.5", "not allowed"),
    ],
)
def test_a_wrong_condition_is_refused_at_the_start(condition, message):
    with pytest.raises(ConfigError, match=r"keep_if: ") as error:
        config(scorers="signal,probe", keep_if=condition)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raising", "scorer 'raising' failed with ValueError: no such thing (probe_scorers.py:"),
        ("short", "scorer 'short' returned 1 values of column 'simple' for 2 segments"),
        ("texts", "scorer 'texts' returned a value of column 'simple' that is not of type float: 'many'"),
        ("unknown", "scorer 'unknown' returned an unknown column 'other'; its columns are simple"),
        ("missing", "scorer 'missing' returned no column 'simple'"),
        ("broken", "scorer 'broken' failed with KeyError: 'weights'"),
    ],
)
def test_a_wrong_scorer_is_named(name, message):
    with pytest.raises(ScorerError) as error:
        load_scorers(name, torch.device("cpu")).score(batch_of(2))
    assert message in str(error.value)


def test_a_raising_scorer_commits_nothing_and_condemns_no_video(videos, tmp_path):
    with pytest.raises(ScorerError, match="scorer 'raising'"):
        run(tmp_path, shard_of(videos), scorers="signal,raising", **NO_RULES)
    assert not list(Path(tmp_path).glob("out/_commits/*"))


def test_memory_that_is_short_halves_the_tile():
    rows = load_scorers("greedy", torch.device("cpu")).score(batch_of(7))
    assert [row["simple"] for row in rows] == [2.0] * 6 + [1.0]


def test_one_segment_that_does_not_fit_is_the_worker_s_failure():
    with pytest.raises(WorkerFailure, match="does not have the memory for one clip"):
        load_scorers("hungry", torch.device("cpu")).score(batch_of(3))


def test_a_scorer_is_loaded_once():
    device = torch.device("cpu")
    assert load_scorers("probe,simple", device) is load_scorers("probe,simple", device)


def test_a_worker_without_the_scorer_is_broken():
    with pytest.raises(BrokenWorker, match="this worker lacks a scorer of the run: unknown scorer 'absent'"):
        load_scorers("absent", torch.device("cpu"))


@pytest.mark.parametrize("change", ["version", "absence"])
def test_a_worker_with_other_scorers_than_the_run_commits_nothing(change, tmp_path, monkeypatch):
    shard, parameters = shard_of([wav_video(tmp_path, "v", 5.0)]), {"scorers": "signal,simple", **NO_RULES}
    store = Store(str(tmp_path / "out"))
    open_run(store, config(output=store.url, **parameters))
    if change == "version":
        monkeypatch.setattr(probe_scorers.Simple, "version", "2")
        message = "has version 2 of scorer 'simple', and the output is of version 1 of 'simple'"
    else:
        monkeypatch.delitem(registry.BUILT_IN, "simple")
        message = "this worker lacks a scorer of the run: unknown scorer 'simple'"
    other = config(output=store.url).model_copy(update=parameters)  # as a worker receives it, without checks
    with pytest.raises(BrokenWorker, match=message):
        process_shard(shard, other, "run")
    assert not list(tmp_path.glob("out/_commits/*"))


def test_the_digest_depends_on_scorers_and_condition():
    digests = {
        config(**parameters).digest
        for parameters in (
            {},
            {"scorers": "signal,simple"},
            {"scorers": "signal,simple,probe"},
            {"scorers": "signal,probe,simple"},
            {"scorers": "signal,probe", "keep_if": "probe_rank = 1"},
        )
    }
    assert len(digests) == 5
    assert config(keep_if="snr_db>5").digest == config(keep_if=" snr_db  > 5").digest
    assert config(device="cuda").digest == config(device="cpu").digest
