"""A plan as rows for a terminal and as tables and a picture for the notebook."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from audiopipe.estimation.estimate import Estimate, Workload, choices
from audiopipe.estimation.prices import providers, store
from audiopipe.estimation.rates import Rates
from audiopipe.estimation.simulate import FailureModel, Outcome, simulate
from audiopipe.estimation.theirs import ThePlan
from audiopipe.report import figure, page
from audiopipe.report.page import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HEAD", "PARAMETERS", "PROVIDER_OF", "caveats", "picture", "rows", "run_simulations", "show"]

PARAMETERS = ("videos", "minutes", "deadline_h", "audio_format", "nodes", "profile", "machine", "games")
# Whose machines a cluster profile rents; the others take any.
PROVIDER_OF = {"ec2": "aws", "gcp": "gcp"}
HEAD = ("machine", "price", "nodes", "hours", "bottleneck", "compute", "egress", "storage", "operations", "total")
NODES = (1, 2, 4, 8, 16, 32, 64)
HOURS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 12, 24, 48, 96, 192)  # that the picture's axis may name


def rows(found: Sequence[Estimate], plan: ThePlan | None = None) -> list[list[str]]:
    """One row a choice, and first the plan's own, by its own sums."""
    theirs = plan or ThePlan()
    money = [f"${theirs.usd - theirs.supabase_usd:,.0f}", "not counted", "not counted", f"${theirs.supabase_usd:.0f}"]
    first = ["plan.md: 8 × g5.4xlarge", f"${theirs.usd_hour:.2f}/h", f"{theirs.nodes}", f"{theirs.deadline_h:.0f}"]
    first += ["not stated", *money]
    return [[*first, f"${theirs.usd:,.0f}"], *[_row(one) for one in found]]


def _row(one: Estimate) -> list[str]:
    costs = one.costs
    money = [f"${value:,.0f}" for value in (costs.compute, costs.egress, costs.storage, costs.operations, costs.total)]
    price = f"${one.instance.usd_hour:.3f}/h {one.instance.market}"
    return [one.instance.name, price, str(one.nodes), f"{one.hours:.1f}", one.bottleneck, *money]


def caveats(work: Workload, rates: Rates, found: Sequence[Estimate]) -> list[str]:
    """What is measured, what is not, and what costs most."""
    theirs = ThePlan()
    flac, opus = (replace(work, audio_format=name).bytes_out / 1e12 for name in ("flac", "opus"))
    out = "; ".join(
        f"{name}: ${flac * 1000 * row.egress_usd_gb:,.0f} as FLAC, ${opus * 1000 * row.egress_usd_gb:,.0f} as Opus"
        for name, row in providers().items()
    )
    scaled = sorted({one.instance.gpu for one in found if one.instance.gpu} - {rates.gpu})
    said = rates.describe()
    measured = f"{said[0].upper()}{said[1:]}."
    extrapolated = (
        "Extrapolated: a core is two vCPUs and its second thread brings nothing; "
        f"GPU {', '.join(scaled) or 'none'} by memory bandwidth; {work.network_gbps:g} Gbit/s and "
        f"{work.disk_mb_s:g} MB/s a node; {work.source_kbps:g} kbit/s of source."
    )
    egress = (
        f"Egress of {flac:.1f} TB of FLAC or {opus:.1f} TB of Opus, beside compute: {out}. "
        "Into R2 and out of it is free; what is charged is leaving the machines' cloud."
    )
    beside = (
        f"The plan's own figures: {theirs.needed_videos_per_min:.0f} videos/min needed, {theirs.nodes_needed} nodes; "
        f"its {theirs.nodes} have {theirs.buffer:.1f} times what is needed (it says 2.3) and would take "
        f"{theirs.hours:.1f} h. It reads about {theirs.source_tb:.0f} TB, which is "
        f"{theirs.source_kbps(work.minutes):.0f} kbit/s; {work.source_kbps:g} kbit/s would be "
        f"{work.bytes_in / 1e12:.1f} TB, free out of R2 either way."
    )
    read = max(store().read, *(one.instance.read for one in found))
    return [measured, extrapolated, egress, beside, f"Prices were read on {read} and move: see prices.yaml."]


def run_simulations(
    one: Estimate, work: Workload, failures: FailureModel, simulations: int = 10
) -> dict[int, list[Outcome]]:
    """Simulated runs of 1 to 64 nodes of a choice's machine, and of its own number of nodes."""
    shard_h = one.hours * one.nodes / work.shards
    return {
        nodes: [simulate(work.shards, shard_h, nodes, failures, seed=seed) for seed in range(simulations)]
        for nodes in sorted({*NODES, one.nodes})
    }


def success_rate(played: Mapping[int, Sequence[Outcome]], deadline_h: float, planned: int) -> str:
    """How many games of the planned number of nodes were done in time, and how many nodes were late in none."""

    def in_time(nodes: int) -> int:
        return sum(outcome.hours <= deadline_h for outcome in played[nodes])

    games = len(played[planned])
    safe = next((nodes for nodes in sorted(played) if in_time(nodes) == games), None)
    said = f"The planned {planned} nodes met the deadline in {in_time(planned)} of {games}"
    if safe is None or in_time(planned) == games:
        return f"{said}."
    return f"{said}; {safe} met it in all."


def picture(played: Mapping[int, Sequence[Outcome]], deadline_h: float) -> str:
    """Completion times over nodes, as SVG: the median, and all that lies between the best and the worst game."""

    def plot(axes: Axes) -> None:
        nodes = sorted(played)
        hours = [sorted(outcome.hours for outcome in played[count]) for count in nodes]
        axes.fill_between(nodes, [h[0] for h in hours], [h[-1] for h in hours], color=figure.KEPT, alpha=0.3)
        axes.plot(nodes, [statistics.median(h) for h in hours], color=figure.KEPT, marker="o", markersize=3)
        axes.axhline(deadline_h, color=figure.LIMIT, linewidth=1)
        axes.text(
            nodes[-1], deadline_h * 1.05, f"deadline {deadline_h:g} h", ha="right", fontsize=8, color=figure.LIMIT
        )
        axes.margins(y=0.12)  # the uppermost percentage is within the frame
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="hours", xticks=nodes, xticklabels=map(str, nodes))
        axes.minorticks_off()
        low, high = axes.get_ylim()
        axes.set_yticks(ticks := [tick for tick in HOURS if low <= tick <= high], [f"{tick:g}" for tick in ticks])
        for count, outcomes in played.items():
            share = statistics.mean(outcome.efficiency for outcome in outcomes)
            top = max(outcome.hours for outcome in outcomes)
            axes.annotate(f"{share:.0%}", (count, top), (0, 4), textcoords="offset points", ha="center", fontsize=8)

    return figure.draw(plot, width=560, height=260)


def show(work: Workload, rates: Rates, profile: str = "auto", nodes: int | None = None, simulations: int = 10) -> Html:
    """The notebook's page: choices, what they rest on, and the simulation of the cheapest."""
    found = choices(work, rates, PROVIDER_OF.get(profile), nodes)
    best, weather = found[0], FailureModel()
    played = run_simulations(best, work, weather, simulations)
    about = (
        f"{simulations} simulated runs of '{best.instance.name}' for each number of nodes: their median, and from the best "
        f"to the worst; in percent, how much of the nodes' time is work. {success_rate(played, work.deadline_h, best.nodes)} "
        f"Assumed, not measured: {weather.slow_nodes:.0%} of nodes {weather.slowness:g} times slower, "
        f"{weather.lost_per_node_hour:g} losses per node and hour, back after {weather.replaced_h * 60:.0f} min."
    )
    drawn = picture(played, work.deadline_h)
    pieces: list[Any] = [
        page.table(HEAD, rows(found), "ll"),
        *[page.note(page.esc(sentence)) for sentence in caveats(work, rates, found)],
        page.figure(drawn, "Completion time", about),
    ]
    return page.styled(page.join(*pieces))
