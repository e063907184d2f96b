"""Render an estimate as rows for a terminal, and as a table and a figure for the notebook."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from audiopipe.estimation import Estimate, FailureModel, InstanceEstimate, Outcome, Workload, load_prices, simulate
from audiopipe.report import figure, page
from audiopipe.report.page import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "PARAMETERS", "notes", "plot_simulations", "run_simulations", "show", "summarize", "table_rows"]

PARAMETERS = ("videos", "minutes", "deadline_h", "audio_format", "nodes", "profile", "machine", "simulations")
COLUMNS = ("machine", "price", "nodes", "hours", "bottleneck", "compute", "egress", "storage", "operations", "total")
NODES = (1, 2, 4, 8, 16, 32, 64)
TICKS_H = (0.1, 0.25, 0.5, 1, 2, 4, 8, 12, 24, 48, 96, 192)  # labels that the axis of hours may show


def table_rows(estimate: Estimate) -> list[list[str]]:
    """Format the estimate as one row of `COLUMNS` for each machine."""
    return [_format_row(row) for row in estimate.rows]


def _format_row(row: InstanceEstimate) -> list[str]:
    costs = row.costs
    money = [f"${value:,.0f}" for value in (costs.compute, costs.egress, costs.storage, costs.operations, costs.total)]
    price = f"${row.instance.usd_hour:.3f}/h {row.instance.market}"
    return [row.instance.name, price, str(row.nodes), f"{row.hours:.1f}", row.bottleneck, *money]


def notes(estimate: Estimate) -> list[str]:
    """List what the estimate measures, what it assumes, what egress costs, and the age of the prices."""
    workload, rates, prices = estimate.workload, estimate.rates, load_prices()
    flac_gb, opus_gb = (replace(workload, audio_format=name).bytes_out / 1e9 for name in ("flac", "opus"))
    egress = "; ".join(
        f"{name}: ${flac_gb * price.egress_usd_gb:,.0f} as FLAC, ${opus_gb * price.egress_usd_gb:,.0f} as Opus"
        for name, price in prices.providers.items()
    )
    scaled_gpus = sorted({row.instance.gpu for row in estimate.rows if row.instance.gpu} - {rates.gpu})
    origin = rates.describe()
    oldest = min(prices.store.as_of, *(row.instance.as_of for row in estimate.rows))
    return [
        f"{origin[0].upper()}{origin[1:]}.",
        (
            f"The estimate assumes {workload.network_gbps:g} Gbit/s and {workload.disk_mb_s:g} MB/s for each node and "
            f"{workload.source_kbps:g} kbit/s of source audio ({workload.bytes_in / 1e12:.1f} TB). It counts two vCPUs "
            "as one core, because a second thread adds no speed. Rates of GPUs without a benchmark "
            f"({', '.join(scaled_gpus) or 'none'}) are scaled by memory bandwidth."
        ),
        (
            f"Egress of {flac_gb / 1000:.1f} TB of FLAC or {opus_gb / 1000:.1f} TB of Opus costs: {egress}. "
            "Traffic into and out of R2 is free; the cloud of the machines charges for what leaves it."
        ),
        f"The oldest price is of {oldest}. Prices change; set AUDIOPIPE_PRICES to a table with current ones.",
    ]


def run_simulations(
    row: InstanceEstimate, workload: Workload, failures: FailureModel, simulations: int = 10
) -> dict[int, list[Outcome]]:
    """Simulate runs on 1 to 64 nodes of a machine, and on the estimated number of nodes."""
    shard_h = row.hours * row.nodes / workload.shards
    return {
        nodes: [simulate(workload.shards, shard_h, nodes, failures, seed=seed) for seed in range(simulations)]
        for nodes in sorted({*NODES, row.nodes})
    }


def summarize(outcomes: Mapping[int, Sequence[Outcome]], deadline_h: float, nodes: int) -> str:
    """Say how many runs on the estimated number of nodes met the deadline, and how many nodes always met it."""

    def runs_in_time(count: int) -> int:
        return sum(outcome.hours <= deadline_h for outcome in outcomes[count])

    runs = len(outcomes[nodes])
    safe_nodes = next((count for count in sorted(outcomes) if runs_in_time(count) == runs), None)
    summary = f"With the estimated {nodes} nodes, {runs_in_time(nodes)} of {runs} runs met the deadline"
    if safe_nodes is None or runs_in_time(nodes) == runs:
        return f"{summary}."
    return f"{summary}; with {safe_nodes}, all did."


def plot_simulations(outcomes: Mapping[int, Sequence[Outcome]], deadline_h: float) -> str:
    """Plot completion time over nodes as SVG: the median, and the range from the fastest run to the slowest."""

    def plot(axes: Axes) -> None:
        nodes = sorted(outcomes)
        hours = [sorted(outcome.hours for outcome in outcomes[count]) for count in nodes]
        axes.fill_between(nodes, [h[0] for h in hours], [h[-1] for h in hours], color=figure.KEPT, alpha=0.3)
        axes.plot(nodes, [statistics.median(h) for h in hours], color=figure.KEPT, marker="o", markersize=3)
        axes.axhline(deadline_h, color=figure.LIMIT, linewidth=1)
        axes.text(
            nodes[-1], deadline_h * 1.05, f"deadline {deadline_h:g} h", ha="right", fontsize=8, color=figure.LIMIT
        )
        axes.margins(y=0.12)  # keeps the uppermost percentage inside the frame
        axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel="hours", xticks=nodes, xticklabels=map(str, nodes))
        axes.minorticks_off()
        low, high = axes.get_ylim()
        axes.set_yticks(ticks := [tick for tick in TICKS_H if low <= tick <= high], [f"{tick:g}" for tick in ticks])
        for count, runs in outcomes.items():
            efficiency = statistics.mean(run.efficiency for run in runs)
            top = max(run.hours for run in runs)
            axes.annotate(
                f"{efficiency:.0%}", (count, top), (0, 4), textcoords="offset points", ha="center", fontsize=8
            )

    return figure.draw(plot, width=560, height=260)


def show(estimate: Estimate, simulations: int = 10) -> Html:
    """Render the notebook's page: the machines, the assumptions, and simulated runs on the cheapest machine."""
    workload, cheapest, failures = estimate.workload, estimate.cheapest, FailureModel()
    outcomes = run_simulations(cheapest, workload, failures, simulations)
    caption = (
        f"{simulations} simulated runs on '{cheapest.instance.name}' for each number of nodes: the median, and the "
        "range from the fastest to the slowest; the percentage is the share of the nodes' time spent on work. "
        f"{summarize(outcomes, workload.deadline_h, cheapest.nodes)} "
        f"Assumed, not measured: {failures.slow_nodes:.0%} of nodes are {failures.slowness:g} times slower; "
        f"a node is lost {failures.losses_per_node_hour:g} times an hour and replaced after "
        f"{failures.replacement_h * 60:.0f} min."
    )
    return page.with_styles(
        page.join(
            page.table(COLUMNS, table_rows(estimate), "ll"),
            *[page.note(page.esc(note)) for note in notes(estimate)],
            page.figure(plot_simulations(outcomes, workload.deadline_h), "Completion time", caption),
        )
    )
