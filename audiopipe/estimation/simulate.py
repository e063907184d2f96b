"""Simulate a run event by event: shards of different sizes, slow nodes, and nodes that fail or are preempted."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

__all__ = ["FailureModel", "Outcome", "simulate"]


@dataclass(frozen=True)
class FailureModel:
    """The variation and failures of a cluster; all values are assumptions.

    Args:
        spread: sigma of the log-normal distribution of the shards' work.
        slow_nodes: share of the nodes that are stragglers.
        slowness: factor by which a straggler is slower.
        losses_per_node_hour: rate of failures and spot preemptions of one node.
        replacement_h: hours until a lost node, or its replacement, works again.
    """

    spread: float = 0.15
    slow_nodes: float = 0.05
    slowness: float = 1.5
    losses_per_node_hour: float = 0.02
    replacement_h: float = 0.1


@dataclass(frozen=True)
class Outcome:
    """The result of one simulated run: hours, share of the nodes' time spent on useful work, and number of losses."""

    hours: float
    efficiency: float
    losses: int


def simulate(
    shards: int, shard_h: float, nodes: int, failures: FailureModel, *, shared: bool = True, seed: int = 0
) -> Outcome:
    """Simulate one run.

    A lost node loses the shard that it works on. With a shared queue, the next free node repeats the shard; without
    one, the node repeats it when it is back.

    Args:
        shards: number of shards.
        shard_h: hours that an average node needs for an average shard.
        nodes: number of nodes.
        failures: variation and failures of the cluster.
        shared: use one queue for all nodes (a Dask cluster); otherwise give each node a fixed partition.
        seed: seed of the random numbers; the same seed gives the same outcome.

    Raises:
        ValueError: `shards`, `nodes` or `shard_h` is not positive.
    """
    if shards < 1 or nodes < 1 or shard_h <= 0:
        raise ValueError("shards, nodes and shard_h must be positive")
    rng = random.Random(seed)
    mean = -(failures.spread**2) / 2  # so that the average work is shard_h
    work = [shard_h * math.exp(rng.gauss(mean, failures.spread)) for _ in range(shards)]
    slow = [failures.slowness if rng.random() < failures.slow_nodes else 1.0 for _ in range(nodes)]
    queues = [deque(work)] * nodes if shared else [deque(work[node::nodes]) for node in range(nodes)]
    return _run_events(rng, queues, slow, failures, sum(work))


def _run_events(
    rng: random.Random, queues: list[deque[float]], slow: list[float], failures: FailureModel, useful_h: float
) -> Outcome:
    """Process events in order of time. An event is a node that becomes free, with the shard that it lost, if any."""
    events = [(0.0, node, 0.0) for node in range(len(queues))]
    heapq.heapify(events)
    losses, end_h = 0, 0.0
    # A shared queue that is empty now may receive a lost shard later, so free nodes wait for the busy ones.
    waiting: list[int] = []
    while events:
        now_h, node, lost_shard = heapq.heappop(events)
        if lost_shard:
            queues[node].appendleft(lost_shard)
            while waiting:
                heapq.heappush(events, (now_h, waiting.pop(), 0.0))
        if not queues[node]:
            waiting.append(node)
            continue
        shard = queues[node].popleft()
        duration_h = shard * slow[node]
        rate = failures.losses_per_node_hour
        until_loss_h = rng.expovariate(rate) if rate else math.inf
        if until_loss_h < duration_h:
            losses += 1
            heapq.heappush(events, (now_h + until_loss_h + failures.replacement_h, node, shard))
        else:
            end_h = max(end_h, now_h + duration_h)
            heapq.heappush(events, (now_h + duration_h, node, 0.0))
    return Outcome(hours=end_h, efficiency=useful_h / (end_h * len(queues)), losses=losses)
