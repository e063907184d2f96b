"""A threshold can be loosened later, without decoding, if dropped segments were written too."""

from pathlib import Path

import pandas as pd
import pytest
from output_factory import config, corpus, make_output
from selection_factory import select_here

from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify
from audiopipe.store.objects import Store

STRICT = {"max_loudness_lufs": -14.8, "keep_dropped": True, "min_segment_s": 0.5}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Make an output with one kept and one dropped segment of each video."""
    folder = tmp_path_factory.mktemp("strict")
    return make_output(config(corpus(folder / "corpus", 3, missing=False), folder / "out", **STRICT))


def test_dropped_segments_have_audio_that_loaders_do_not_see(strict: Store) -> None:
    root = Path(strict.root)
    rows = pd.concat(pd.read_parquet(path) for path in root.glob("*/segments_*.parquet"))
    assert sorted(rows.kept) == [False] * 3 + [True] * 3
    assert set(rows.drop_reason.dropna()) == {"too_loud"}
    assert rows.tar_offset.notna().all()
    tars = {str(path.relative_to(root)) for path in root.rglob("*.tar")}
    assert len(tars) == 4
    assert set(strict.read("tars.txt").decode().split()) == {tar for tar in tars if "/audio_" in tar}
    dataset = Dataset(strict.url)
    assert len(dataset) == len(list(dataset)) == 3
    assert all(segment.row["kept"] for segment in dataset.iterate())
    dropped = dataset[rows[~rows.kept].key.iloc[0]]
    assert dropped.audio.size == round(16_000 * dropped.duration_s)
    assert verify(strict.url).findings == ()
    assert not collect_garbage(strict.url, min_age_h=0).objects


def test_a_loosened_threshold_takes_them_back(strict: Store, tmp_path: Path) -> None:
    loose = make_output(config(Path(strict.root).parent / "corpus" / "catalog.parquet", tmp_path / "loose"))
    url = select_here(strict.url, str(tmp_path / "all"), tmp_path / "scratch", where="loudness_lufs > -50").url
    audio = {segment.key: segment.read_bytes() for segment in Dataset(url)}
    assert audio == {segment.key: segment.read_bytes() for segment in Dataset(loose.url)}
    assert len(audio) == 6
    assert verify(url).findings == ()
    virtual = select_here(
        strict.url, str(tmp_path / "virtual"), tmp_path / "other", where="loudness_lufs > -50", virtual=True
    ).url
    assert {segment.key: segment.read_bytes() for segment in Dataset(virtual)} == audio
    assert verify(virtual).findings == ()
    kept = select_here(strict.url, str(tmp_path / "kept"), tmp_path / "third").url
    assert len(Dataset(kept)) == 3


def test_a_damaged_tar_of_dropped_segments_is_found(strict: Store) -> None:
    path = next(Path(strict.root).glob("*/dropped_*.tar"))
    body = path.read_bytes()
    path.write_bytes(body[:600] + b"\x01" + body[601:])
    try:
        (finding,) = verify(strict.url).findings
        assert finding.name == str(path.relative_to(strict.root))
    finally:
        path.write_bytes(body)
