"""Check the estimate by hand: costs, rates, prices, and what a simulation must always satisfy."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from audiopipe.errors import ConfigError
from audiopipe.estimation import (
    FailureModel,
    Rates,
    Workload,
    estimate,
    estimate_instance,
    load_prices,
    load_rates,
    simulate,
)

NO_FAILURES = FailureModel(spread=0.0, slow_nodes=0.0, losses_per_node_hour=0.0)
RATES = Rates("a test", "by hand", core_x_with_gpu=400.0, core_x_without_gpu=300.0, gpu="A10G", gpu_x=10_000.0)
G5 = next(row for row in load_prices().instances if row.name == "g5.4xlarge")


def test_every_price_has_a_date_and_a_source() -> None:
    prices = load_prices()
    for row in [*prices.instances, *prices.providers.values(), prices.store, prices.ledger]:
        assert row.as_of.year >= 2026
        assert row.source


def test_estimate_has_a_row_per_machine_cheapest_first(tmp_path: Path) -> None:
    result = estimate(videos=500_000, minutes=17, rates_folder=tmp_path)
    assert result.workload == Workload(500_000, 17)
    assert sorted(row.instance.name for row in result.rows) == sorted(i.name for i in load_prices().instances)
    assert [row.costs.total for row in result.rows] == sorted(row.costs.total for row in result.rows)
    assert result.cheapest is result.rows[0]


def test_estimate_compares_the_machines_of_a_profile(tmp_path: Path) -> None:
    result = estimate(profile="gcp", nodes=4, audio_format="opus", rates_folder=tmp_path)
    assert {(row.instance.provider, row.nodes) for row in result.rows} == {("gcp", 4)}
    assert result.workload.audio_format == "opus"


@pytest.mark.parametrize(
    ("parameters", "message"), [({"videos": 0}, "videos must be"), ({"audio_format": "wma"}, "wma")]
)
def test_an_impossible_workload_is_refused(parameters: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Workload(**parameters)  # type: ignore[arg-type]


def test_hours_follow_from_audio_and_core_rate() -> None:
    # 500,000 × 17 min = 141,666.67 h of audio; 8 cores × 400 = 3,200 times real time: 44.27 h on one node.
    row = estimate_instance(Workload(), RATES, G5, nodes=1)
    assert row.bottleneck == "CPU"
    assert row.hours == pytest.approx(44.27, abs=0.005)
    fewest = estimate_instance(Workload(), RATES, G5)
    assert fewest.nodes == 2
    assert fewest.hours == pytest.approx(22.135, abs=0.005)


def test_costs_by_hand() -> None:
    costs = estimate_instance(Workload(), RATES, G5).costs
    assert costs.compute == pytest.approx(44.27 * 1.624, abs=0.01)
    # 5.1e8 s × 154 kbit/s = 9,817.5 GB: at $0.09 out of AWS, at $0.015 a month in R2.
    assert costs.egress == pytest.approx(883.58, abs=0.01)
    assert costs.storage == pytest.approx(147.26, abs=0.01)
    # 7,813 shards × 12 + 196,350 parts = 290,106 writes; 16.3 MB are two ranges: 500,000 × 4 + 7,813 × 5 reads;
    # Supabase $25.
    assert costs.operations == pytest.approx(0.290106 * 4.5 + 2.039065 * 0.36 + 25, abs=0.001)
    assert costs.total == pytest.approx(sum(asdict(costs).values()))


def test_opus_saves_four_fifths_of_the_egress() -> None:
    flac, opus = (estimate_instance(Workload(audio_format=name), RATES, G5).costs for name in ("flac", "opus"))
    assert opus.egress / flac.egress == pytest.approx(32 / 154)
    assert flac.egress > 10 * flac.compute, "FLAC out of AWS costs more than all the compute"


@pytest.mark.parametrize(
    ("change", "slow_gpu", "bottleneck"),
    [
        ({}, False, "CPU"),
        ({"network_gbps": 0.5}, False, "network"),
        ({"disk_mb_s": 50.0}, False, "disk"),
        ({}, True, "GPU"),
    ],
)
def test_the_slowest_part_is_the_bottleneck(change: dict[str, float], slow_gpu: bool, bottleneck: str) -> None:
    rates = replace(RATES, gpu_x=100.0) if slow_gpu else RATES
    assert estimate_instance(replace(Workload(), **change), rates, G5).bottleneck == bottleneck


def test_a_vcpu_is_half_a_core() -> None:
    cpu_only = next(row for row in load_prices().instances_of("gcp") if row.gpu is None)
    assert (cpu_only.vcpus, cpu_only.cores) == (16, 8)
    assert estimate_instance(Workload(), RATES, cpu_only).node_x == 8 * 300.0


def test_an_unmeasured_gpu_is_scaled_by_bandwidth() -> None:
    assert RATES.gpu_x_of("A10G") == 10_000.0
    assert RATES.gpu_x_of("L4") == 5_000.0
    with pytest.raises(ConfigError, match="no rate for GPU 'T1000'"):
        RATES.gpu_x_of("T1000")


def test_rates_are_assumed_without_a_benchmark(tmp_path: Path) -> None:
    rates = load_rates(tmp_path)
    assert rates.core_x_with_gpu == pytest.approx(0.85 * 512.195, abs=0.01)  # 1 / (1/600 + 1/3500)
    assert "NOT measured" in rates.describe()


def test_the_most_recent_benchmark_supplies_the_rates(tmp_path: Path) -> None:
    body = {name: value for name, value in asdict(RATES).items() if name not in ("measured", "assumed")}
    for age, machine in ((1, "old"), (2, "new")):
        path = tmp_path / f"rates-{machine}.json"
        path.write_text(json.dumps(body | {"machine": machine}))
        os.utime(path, (age, age))
    assert load_rates(tmp_path).machine == "new"
    assert load_rates(tmp_path, "old") == replace(RATES, machine="old")
    assert load_rates(tmp_path).describe().startswith("rates measured (new")
    with pytest.raises(ConfigError, match=r"no rates of machine 'laptop'.*: new, old"):
        load_rates(tmp_path, "laptop")


def test_missing_rates_come_from_older_benchmarks(tmp_path: Path) -> None:
    names = ("machine", "source", "core_x_with_gpu", "core_x_without_gpu", "gpu", "gpu_x")
    files = {"cpu": ("cpu", "bench", None, 300.0, None, None), "gpu": ("gpu", "bench", 450.0, None, "H200", 9e4)}
    for age, name in enumerate(("cpu", "gpu")):
        path = tmp_path / f"rates-{name}.json"
        path.write_text(json.dumps(dict(zip(names, files[name], strict=True))))
        os.utime(path, (1000 - age, 1000 - age))
        rates = load_rates(tmp_path)
        expected = (0.85 * 512.195, 120_000.0) if name == "cpu" else (450.0, 9e4)
        assert (rates.core_x_with_gpu, rates.gpu_x) == pytest.approx(expected, abs=0.01)
        assert (rates.core_x_without_gpu, rates.machine, rates.gpu) == (300.0, "cpu", "H200")
        assert ("NOT measured" in rates.describe()) == (name == "cpu")
    assert "core_x_with_gpu of gpu: bench" in rates.describe()


def test_a_file_without_the_fields_of_rates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rates-x.json").write_text('{"machine": "x"}')
    with pytest.raises(ConfigError, match="must have exactly the fields"):
        load_rates(tmp_path)


def test_without_failures_simulation_equals_arithmetic() -> None:
    outcome = simulate(128, 0.5, 8, NO_FAILURES)
    assert outcome.hours == pytest.approx(128 * 0.5 / 8)
    assert outcome.efficiency == pytest.approx(1.0)
    assert outcome.losses == 0


def test_nodes_wait_for_the_last_round_of_shards() -> None:
    assert simulate(9, 1.0, 8, NO_FAILURES).hours == 2.0
    assert simulate(9, 1.0, 8, NO_FAILURES).efficiency == pytest.approx(9 / 16)


@pytest.mark.parametrize("shared", [True, False])
def test_losses_cost_time_and_no_shard_is_lost(shared: bool) -> None:
    losses = replace(NO_FAILURES, losses_per_node_hour=0.5)
    stable, unstable = (simulate(200, 0.2, 4, model, shared=shared, seed=3) for model in (NO_FAILURES, losses))
    assert unstable.losses > 0
    assert unstable.hours > stable.hours
    useful_h = [outcome.efficiency * outcome.hours for outcome in (stable, unstable)]
    assert useful_h[1] == pytest.approx(useful_h[0])


def test_a_shared_queue_hides_stragglers_and_partitions_do_not() -> None:
    stragglers = replace(NO_FAILURES, slow_nodes=0.3, slowness=3.0)
    shared, partitioned = (simulate(400, 0.1, 8, stragglers, shared=value, seed=1) for value in (True, False))
    assert partitioned.hours == pytest.approx(3 * 400 * 0.1 / 8)
    assert shared.hours < 0.6 * partitioned.hours


def test_the_same_seed_gives_the_same_outcome() -> None:
    assert simulate(50, 1.0, 4, FailureModel(), seed=5) == simulate(50, 1.0, 4, FailureModel(), seed=5)
    assert simulate(50, 1.0, 4, FailureModel(), seed=5) != simulate(50, 1.0, 4, FailureModel(), seed=6)


def test_simulating_no_shards_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        simulate(0, 1.0, 1, NO_FAILURES)


INSTANCE = {**asdict(G5), "provider": "hetzner"}
PRICES = {
    "instances": [INSTANCE],
    "providers": {"hetzner": {"egress_usd_gb": 0.001, "as_of": "2026-11-22", "source": "a test"}},
    "store": {**asdict(load_prices().store)},
    "ledger": {**asdict(load_prices().ledger)},
}


def test_audiopipe_prices_names_another_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(PRICES))
    monkeypatch.setenv("AUDIOPIPE_PRICES", str(path))
    assert [row.instance.provider for row in estimate(rates_folder=tmp_path).rows] == ["hetzner"]
    with pytest.raises(ConfigError, match="no machine of 'aws'; known providers: hetzner"):
        estimate(profile="ec2", rates_folder=tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"instances": []}, "has no ledger, providers, store"),
        ([], "has no instances, ledger, providers, store"),
        (PRICES | {"instances": [{"name": "x"}]}, "has an invalid row"),
        (PRICES | {"providers": {}}, "has no egress price of hetzner"),
        (None, "cannot read the price table"),
    ],
)
def test_an_invalid_price_table_is_refused(
    table: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.yaml"
    if table is not None:
        path.write_text(yaml.safe_dump(table))
    monkeypatch.setenv("AUDIOPIPE_PRICES", str(path))
    with pytest.raises(ConfigError, match=message):
        load_prices()
