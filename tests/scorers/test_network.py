"""Networks in files: their values, their independence of the batch, and what is refused."""

import io
import json
import os
import pickle
import zipfile

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from factories import shard_of, wav_video
from shard_factory import NO_RULES, run

from audiopipe.config import RunConfig
from audiopipe.dataset.run_record import open_run, read_columns, read_config, read_run_record
from audiopipe.errors import ConfigError
from audiopipe.scorers.exported_program import check_program
from audiopipe.scorers.registry import create_scorers
from audiopipe.scorers.scorer import ScorerBatch, SegmentInfo
from audiopipe.store.objects import Store

RATE = 16_000
LABELS = ["de", "en", "fr"]
FRAMES = {"kernel_size": 400, "stride": 160}


class Language(torch.nn.Module):
    """Pools frames of each segment up to its length."""

    def __init__(self):
        super().__init__()
        self.frames, self.head = torch.nn.Conv1d(1, 8, **FRAMES), torch.nn.Linear(8, 3)

    def forward(self, samples, lengths):
        frames = torch.relu(self.frames(samples[:, None]))
        counts = ((lengths - 400) // 160 + 1).clamp(min=1)
        mask = (torch.arange(frames.shape[-1], device=frames.device) < counts[:, None]).to(frames)
        pooled = (frames * mask[:, None]).sum(-1) / counts[:, None]
        return self.head(pooled), pooled.mean(1)


class Window(torch.nn.Module):
    """Scores windows of one second."""

    def __init__(self):
        super().__init__()
        self.frames = torch.nn.Conv1d(1, 4, **FRAMES)

    def forward(self, samples):
        return torch.relu(self.frames(samples)).mean((1, 2))


LANGUAGE = {
    "name": "lid",
    "program": "language.pt2",
    "sample_rate": RATE,
    "inputs": ["samples", "lengths"],
    "min_s": 0.1,
    "outputs": [
        {"name": "spoken", "description": "language", "labels": LABELS, "probability": "spoken_probability"},
        {"columns": [{"name": "activity", "description": "mean of all", "minimum": 0}]},
    ],
}
WINDOW = {
    "name": "win",
    "program": "window.pt2",
    "sample_rate": RATE,
    "layout": "channel_time",
    "window_s": 1.0,
    "hop_s": 0.5,
    "padding": "repeat",
    "max_batch": 4,
    "fixed_batch": True,
    "outputs": [{"columns": [{"name": "win", "unit": "MOS", "description": "a MOS"}]}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Export both networks with random weights, and describe them."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    batch, time = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("time", min=1000, max=10**7)
    example = torch.zeros(2, RATE), torch.tensor([RATE, 9000])
    shapes = {"samples": {0: batch, 1: time}, "lengths": {0: batch}}
    networks = Language(), Window()
    torch.export.save(torch.export.export(networks[0], example, dynamic_shapes=shapes), folder / "language.pt2")
    torch.export.save(torch.export.export(networks[1], (torch.zeros(4, 1, RATE),)), folder / "window.pt2")
    for name, description in (("lid", LANGUAGE), ("win", WINDOW)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(description))
    torch.save([network.state_dict() for network in networks], folder / "weights.pt")
    return folder


def networks_of(folder):
    networks = Language(), Window()
    for network, weights in zip(networks, torch.load(folder / "weights.pt", weights_only=True), strict=True):
        network.load_state_dict(weights)
    return networks


def loaded(folder, name):
    (scorer,) = create_scorers(str(folder / f"{name}.yaml"))
    scorer.load(torch.device("cpu"))
    return scorer


def signals_of(*seconds):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(round(RATE * length), generator=generator) for length in seconds]


def score(scorer, signals):
    samples = torch.nn.utils.rnn.pad_sequence(signals, batch_first=True)[:, None]
    segments = [SegmentInfo("v", "en", 1.0, None, None)] * len(signals)
    with torch.inference_mode():
        return scorer.score(ScorerBatch(samples, [len(signal) for signal in signals], segments, RATE))


def test_labels_and_numbers_are_those_of_the_network(folder):
    signals, (network, _) = signals_of(1.0, 0.7, 2.3, 0.05), networks_of(folder)
    scorer = loaded(folder, "lid")
    values = score(scorer, signals)
    assert [column.name for column in scorer.columns] == ["spoken", "spoken_probability", "activity"]
    with torch.inference_mode():
        for i, signal in enumerate(signals):
            padded = torch.nn.functional.pad(signal, (0, max(0, 1600 - len(signal))))
            logits, activity = network(padded[None], torch.tensor([len(signal)]))
            probabilities = logits.softmax(-1)[0]
            assert values["spoken"][i] == LABELS[int(probabilities.argmax())]
            assert values["spoken_probability"][i] == pytest.approx(float(probabilities.max()), abs=1e-6)
            assert values["activity"][i] == pytest.approx(float(activity), abs=1e-6)


def test_values_of_a_segment_do_not_depend_on_its_batch(folder):
    signals = signals_of(*(0.3 + 0.17 * i for i in range(9)))
    for name, column in (("lid", "activity"), ("win", "win")):
        scorer = loaded(folder, name)
        together = score(scorer, signals)[column]
        alone = [score(scorer, [signal])[column][0] for signal in signals]
        assert together == pytest.approx(alone, abs=1e-6)


def test_windows_are_averaged_and_short_segments_repeated(folder):
    short, long = signals_of(0.4, 2.2)
    values = score(loaded(folder, "win"), [short, long])["win"]
    _, network = networks_of(folder)
    with torch.inference_mode():
        repeated = short.repeat(3)[:RATE]
        windows = long.unfold(0, RATE, RATE // 2)
        assert windows.shape[0] == 3
        assert values[0] == pytest.approx(float(network(repeated[None, None])), abs=1e-6)
        assert values[1] == pytest.approx(float(network(windows[:, None]).mean()), abs=1e-6)


def test_the_version_is_that_of_both_files_not_of_their_place(folder, tmp_path):
    def digest(place):
        return RunConfig.of(catalog="c", output="o", scorers=f"signal,{place / 'lid.yaml'}").digest

    for name in ("lid.yaml", "language.pt2"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert digest(tmp_path) == digest(folder)
    (tmp_path / "lid.yaml").write_text(yaml.safe_dump(LANGUAGE | {"min_s": 0.2}))
    assert digest(tmp_path) != digest(folder)
    scorer = create_scorers(str(tmp_path / "lid.yaml"))[0]
    (tmp_path / "language.pt2").write_bytes((folder / "window.pt2").read_bytes())
    with pytest.raises(ConfigError, match="has changed since the run was started"):
        scorer.load(torch.device("cpu"))


def test_paths_of_networks_become_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert RunConfig.of(catalog="c", output="o", scorers="signal, lid.yaml").scorers == f"signal,{folder / 'lid.yaml'}"


def test_a_run_has_the_columns_and_finds_the_network_again(folder, tmp_path):
    scorers = f"signal,{folder / 'lid.yaml'}"
    video = wav_video(tmp_path, "v", 12.0)
    run(tmp_path, shard_of([video]), scorers=scorers, keep_if=f"spoken IN ('{LABELS[0]}', '{LABELS[1]}')", **NO_RULES)
    rows = pq.read_table(tmp_path / "out/en/segments_000000.parquet").to_pylist()
    assert rows
    assert {row["spoken"] for row in rows} <= set(LABELS)
    assert all(row["kept"] == (row["spoken"] != LABELS[2]) for row in rows)
    config = RunConfig.of(catalog="c", output=str(tmp_path / "out"), scorers=scorers)
    store = Store(config.output)
    open_run(store, config)
    assert read_config(store).scorers == scorers
    assert read_config(store).digest == config.digest
    assert [column.name for column in read_columns(read_run_record(store))][-3:] == [
        "spoken",
        "spoken_probability",
        "activity",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program": "none.pt2"}, "none.pt2 cannot be read"),
        ({"sample_rat": 1}, "sample_rat: Extra inputs are not permitted"),
        ({"outputs": []}, "outputs"),
        ({"name": "a b"}, "name: String should match"),
        ({"inputs": ["lengths"]}, "inputs must be samples"),
        ({"outputs": [{"name": "x", "description": "y"}]}, "needs a name, and one with a name needs labels"),
        ({"hop_s": 1.0}, "hop_s needs window_s"),
        ({"outputs": [{"columns": [{"name": "Bad-Name", "description": "x"}]}]}, "String should match"),
    ],
)
def test_a_wrong_description_is_refused(folder, tmp_path, change, message):
    path = tmp_path / "lid.yaml"
    path.write_text(yaml.safe_dump(LANGUAGE | {"program": str(folder / "language.pt2")} | change))
    with pytest.raises(ConfigError, match=message):
        create_scorers(str(path))


def test_outputs_that_do_not_fit_the_description_are_refused(folder, tmp_path):
    path = tmp_path / "lid.yaml"
    wrong = {"outputs": [LANGUAGE["outputs"][0] | {"labels": ["de", "en"]}, {}]}
    for change, message in (
        (wrong, "has 3 values, and 2 labels"),
        ({"outputs": [{}]}, "has 2 outputs, and its YAML 1"),
    ):
        path.write_text(yaml.safe_dump(LANGUAGE | {"program": str(folder / "language.pt2")} | change))
        with pytest.raises(ValueError, match=message):
            score(loaded(tmp_path, "lid"), signals_of(0.5))


class Shell:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-not-exist",)


def rewritten(data, member, change):
    """Return an archive with one member changed, or added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        names = source.namelist()
        root = names[0].split("/")[0]
        for name in names:
            content = source.read(name)
            target.writestr(name, change(content) if name == f"{root}/{member}" else content)
        if f"{root}/{member}" not in names:
            target.writestr(f"{root}/{member}", change(b""))
    return buffer.getvalue()


def replaced(old, new):
    return lambda content: content.replace(old, new) if old in content else pytest.fail(f"{old} is not there")


def pickled_weight(content):
    config = json.loads(content)
    next(iter(config["config"].values()))["use_pickle"] = True
    return json.dumps(config).encode()


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("data/sample_inputs/model.pt", lambda _: pickle.dumps(Shell()), "not a program"),
        ("data/weights/model.pt", lambda _: pickle.dumps(Shell()), "has a member"),
        ("data/aotinductor/model/a.so", lambda _: b"ELF", "has a member"),
        ("data/constants/custom_obj_0", lambda _: b"x", "has a member"),
        ("data/weights/model_weights_config.json", pickled_weight, "pickled object"),
        ("models/model.json", replaced(b"torch.ops.aten.relu.default", b"torch.os.system"), "target 'torch.os.system'"),
        ("models/model.json", replaced(b"torch.ops.aten.relu.default", b"torch.hub.load"), "target 'torch.hub.load'"),
        (
            "models/model.json",
            replaced(b"torch.ops.aten.relu.default", b"torch.ops.aten.from_file.default"),
            "from_file",
        ),
        ("models/model.json", replaced(b"Integer(-400)", b"exec(chr(112))"), "expr_str"),
        ("models/model.json", replaced(b'"conv1d"', b'"x=print(1)"'), "not allowed"),
        ("models/model.json", lambda _: b"{", "not a program"),
    ],
)
def test_programs_that_could_run_code_are_refused(folder, member, change, message):
    data = (folder / "language.pt2").read_bytes()
    check_program(data)
    with pytest.raises(ConfigError, match=message):
        check_program(rewritten(data, member, change))


def test_a_damaged_file_is_refused(folder):
    data = (folder / "language.pt2").read_bytes()
    for broken in (b"", b"PK", data[: len(data) // 2]):
        with pytest.raises(ConfigError, match="it is not a program"):
            check_program(broken)
