"""The planner's sums by hand, its tables, and what its simulation must always do."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from audiopipe import estimation as planner
from audiopipe.cli import main
from audiopipe.errors import ConfigError
from audiopipe.estimation import FailureModel, Rates, ThePlan, Workload, estimate, instances, load_rates, simulate
from audiopipe.estimation.simulate import Outcome
from audiopipe.report import estimate as present

FINE = FailureModel(spread=0.0, slow_nodes=0.0, lost_per_node_hour=0.0)
RATES = Rates("a test", "by hand", core_x_with_gpu=400.0, core_x_without_gpu=300.0, gpu="A10G", gpu_x=10_000.0)
G5 = next(row for row in instances("aws") if row.name == "g5.4xlarge")


def test_the_reference_table_follows_from_its_figures() -> None:
    plan = ThePlan()
    assert plan.today_days == pytest.approx(45.93, abs=0.01)  # "46 days"
    assert plan.needed_videos_per_min == pytest.approx(347.2, abs=0.05)  # "347 videos/min"
    assert plan.node_videos_per_min == pytest.approx(83.16)  # "83 videos/min"
    assert plan.nodes_needed == 5
    assert plan.usd == 192 + 25  # "~$220"
    assert plan.hours == pytest.approx(12.53, abs=0.01)  # 500,000 / (8 × 83.16) / 60


def test_the_reference_buffer_is_1_9_and_not_2_3() -> None:
    assert ThePlan().buffer == pytest.approx(8 * 83.16 / 347.22, abs=0.001)
    assert round(ThePlan().buffer, 1) == 1.9


def test_five_terabytes_are_78_kbit_s_and_both_figures_are_shown() -> None:
    assert ThePlan().source_kbps(17.0) == pytest.approx(5e12 * 8 / 5.1e8 / 1000)  # 78.4
    said = " ".join(present.caveats(Workload(), RATES, planner.choices(Workload(), RATES)))
    assert "about 5 TB, which is 78 kbit/s; 128 kbit/s would be 8.2 TB" in said


def test_the_price_table_has_the_plan_s_four_machines_at_its_prices() -> None:
    planned = {row.name.split(",")[0]: row for row in instances() if row.market == "plan"}
    assert {name: row.usd_hour for name, row in planned.items()} == {
        "g5.4xlarge": 1.00,
        "g5.8xlarge": 2.00,
        "p4d.24xlarge": 32.77,
        "g2-standard-16": 0.80,
    }
    assert [row.vcpus for row in planned.values()] == [16, 32, 96, 16]
    assert planned["p4d.24xlarge"].gpus == 8


def test_every_price_has_a_date_and_a_source() -> None:
    for row in [*instances(), *planner.providers().values()]:
        assert row.read.year >= 2026
        assert row.source


def test_hours_and_nodes_are_the_audio_over_what_the_cores_can() -> None:
    # 500,000 × 17 min = 141,666.67 h of audio; 8 cores × 400 = 3,200 times real time: 44.27 h on one node.
    one = estimate(Workload(), RATES, G5, nodes=1)
    assert one.bottleneck == "CPU"
    assert one.hours == pytest.approx(44.27, abs=0.005)
    fewest = estimate(Workload(), RATES, G5)
    assert fewest.nodes == 2
    assert fewest.hours == pytest.approx(22.135, abs=0.005)


def test_costs_by_hand() -> None:
    costs = estimate(Workload(), RATES, G5).costs
    assert costs.compute == pytest.approx(44.27 * 1.624, abs=0.01)
    # 5.1e8 s × 154 kbit/s = 9,817.5 GB: at $0.09 out of AWS, at $0.015 a month in R2.
    assert costs.egress == pytest.approx(883.58, abs=0.01)
    assert costs.storage == pytest.approx(147.26, abs=0.01)
    # 7,813 shards × 9 + 196,350 parts = 266,667 writes; 1,000,000 + 31,252 reads; Supabase $25.
    assert costs.operations == pytest.approx(0.266667 * 4.5 + 1.031252 * 0.36 + 25, abs=0.001)
    assert costs.total == pytest.approx(sum(asdict(costs).values()))


def test_opus_saves_four_fifths_of_the_egress() -> None:
    flac, opus = (estimate(Workload(audio_format=name), RATES, G5).costs for name in ("flac", "opus"))
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
    assert estimate(replace(Workload(), **change), rates, G5).bottleneck == bottleneck


def test_a_vcpu_is_half_a_core_and_cpu_machines_have_another_rate() -> None:
    plain = next(row for row in instances("gcp") if row.gpu is None)
    assert (plain.vcpus, plain.cores) == (16, 8)
    assert estimate(Workload(), RATES, plain).node_x == 8 * 300.0


def test_a_gpu_that_was_not_measured_is_scaled_by_memory_bandwidth() -> None:
    assert RATES.gpu_x_of("A10G") == 10_000.0
    assert RATES.gpu_x_of("L4") == 5_000.0
    with pytest.raises(ConfigError, match="no rate for GPU 'T1000'"):
        RATES.gpu_x_of("T1000")


def test_default_rates_replace_measurements_and_are_labeled(tmp_path: Path) -> None:
    rates = load_rates(tmp_path)
    assert rates.core_x_with_gpu == pytest.approx(0.85 * 512.195, abs=0.01)  # 1 / (1/600 + 1/3500)
    assert "NOT measured" in rates.describe()
    assert "NOT measured" in " ".join(present.caveats(Workload(), rates, planner.choices(Workload(), rates)))


def test_measured_rates_are_found_by_machine_and_the_newest_counts(tmp_path: Path) -> None:
    body = {name: value for name, value in asdict(RATES).items() if name not in ("measured", "assumed")}
    for age, machine in ((1, "old"), (2, "new")):
        path = tmp_path / f"rates-{machine}.json"
        path.write_text(json.dumps(body | {"machine": machine}))
        os.utime(path, (age, age))
    assert load_rates(tmp_path).machine == "new"
    assert load_rates(tmp_path, "old") == replace(RATES, machine="old")
    assert load_rates(tmp_path).describe().startswith("rates measured (new")
    with pytest.raises(ConfigError, match="no rates of machine 'mine'"):
        load_rates(tmp_path, "mine")


def test_missing_rates_come_from_other_machines_or_the_defaults(tmp_path: Path) -> None:
    names = ("machine", "source", "core_x_with_gpu", "core_x_without_gpu", "gpu", "gpu_x")
    files = {"cpu": ("cpu", "bench", None, 300.0, None, None), "gpu": ("gpu", "bench", 450.0, None, "H200", 9e4)}
    for age, name in enumerate(("cpu", "gpu")):
        path = tmp_path / f"rates-{name}.json"
        path.write_text(json.dumps(dict(zip(names, files[name], strict=True))))
        os.utime(path, (1000 - age, 1000 - age))
        found = load_rates(tmp_path)
        expected = (0.85 * 512.195, 120_000.0) if name == "cpu" else (450.0, 9e4)
        assert (found.core_x_with_gpu, found.gpu_x) == pytest.approx(expected, abs=0.01)
        assert (found.core_x_without_gpu, found.machine, found.gpu) == (300.0, "cpu", "H200")
        assert ("NOT measured" in found.describe()) == (name == "cpu")
    assert "core_x_with_gpu of gpu: bench" in found.describe()


def test_a_file_that_is_not_of_rates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rates-x.json").write_text('{"machine": "x"}')
    with pytest.raises(ConfigError, match="rates need exactly"):
        load_rates(tmp_path)


def test_in_fine_weather_the_simulation_is_the_arithmetic() -> None:
    outcome = simulate(128, 0.5, 8, FINE)
    assert outcome.hours == pytest.approx(128 * 0.5 / 8)
    assert outcome.efficiency == pytest.approx(1.0)
    assert outcome.losses == 0


def test_the_last_round_of_shards_is_what_many_nodes_wait_for() -> None:
    assert simulate(9, 1.0, 8, FINE).hours == 2.0
    assert simulate(9, 1.0, 8, FINE).efficiency == pytest.approx(9 / 16)


@pytest.mark.parametrize("shared", [True, False])
def test_losses_cost_time_and_every_shard_is_still_done(shared: bool) -> None:
    stormy = replace(FINE, lost_per_node_hour=0.5)
    fine, rough = (simulate(200, 0.2, 4, weather, shared=shared, seed=3) for weather in (FINE, stormy))
    assert rough.losses > 0
    assert rough.hours > fine.hours
    assert rough.efficiency * rough.hours == pytest.approx(fine.efficiency * fine.hours), "the same useful work"


def test_a_shared_queue_absorbs_a_straggler_and_partitions_wait() -> None:
    slow = replace(FINE, slow_nodes=0.3, slowness=3.0)
    shared, apart = (simulate(400, 0.1, 8, slow, shared=way, seed=1) for way in (True, False))
    assert apart.hours == pytest.approx(3 * 400 * 0.1 / 8)
    assert shared.hours < 0.6 * apart.hours


def test_a_game_is_the_same_for_the_same_seed() -> None:
    assert simulate(50, 1.0, 4, FailureModel(), seed=5) == simulate(50, 1.0, 4, FailureModel(), seed=5)
    assert simulate(50, 1.0, 4, FailureModel(), seed=5) != simulate(50, 1.0, 4, FailureModel(), seed=6)


def test_nothing_to_play_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        simulate(0, 1.0, 1, FINE)


def test_the_figure_shows_how_often_the_nodes_were_in_time() -> None:
    played = {2: [Outcome(20.0, 1.0, 0), Outcome(25.0, 1.0, 0)], 4: [Outcome(10.0, 1.0, 0), Outcome(12.0, 1.0, 0)]}
    assert present.success_rate(played, 24.0, 2) == "The planned 2 nodes met the deadline in 1 of 2; 4 met it in all."
    assert present.success_rate(played, 24.0, 4) == "The planned 4 nodes met the deadline in 2 of 2."
    assert present.success_rate(played, 11.0, 2) == "The planned 2 nodes met the deadline in 0 of 2."


def test_the_page_has_the_choices_the_caveats_and_a_picture() -> None:
    html = present.show(Workload(videos=2000), RATES, nodes=3, simulations=2)._repr_html_()
    assert "The planned 3 nodes met the deadline in 2 of 2." in html
    assert "plan.md: 8 × g5.4xlarge" in html
    assert "<svg" in html
    assert "Assumed, not measured" in html


def test_the_command_shows_the_reference_with_our_choices(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["estimate", "--rates", str(tmp_path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "g5.4xlarge, as planned" in done.output
    assert "$217" in done.output
    assert "NOT measured" in done.output


def test_the_command_s_json_holds_the_profile_s_machines_only(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["estimate", "--profile", "gcp", "--nodes", "4", "--json", "--rates", str(tmp_path)]
    )
    body = json.loads(done.output)
    assert body["rates"]["measured"] is False
    assert {choice["instance"]["provider"] for choice in body["choices"]} == {"gcp"}
    assert {choice["nodes"] for choice in body["choices"]} == {4}
    assert [choice["total_usd"] for choice in body["choices"]] == sorted(c["total_usd"] for c in body["choices"])


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_choices(tmp_path: Path) -> None:
    import papermill

    notebook = Path(__file__).parents[2] / "notebooks/plan.ipynb"
    done = papermill.execute_notebook(
        str(notebook), str(tmp_path / "plan.ipynb"), {"games": 2, "videos": 2000}, progress_bar=False
    )
    shown = str(done.cells[-1].outputs)
    assert "g5.4xlarge, as planned" in shown
    assert "<svg" in shown


def test_another_price_table_overrides_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("instances: []\n")
    monkeypatch.setenv("AUDIOPIPE_PRICES", str(own))
    with pytest.raises(ConfigError, match="has no ledger, providers, store"):
        instances()
