"""A run played through event by event: shards that differ, nodes that are slow, fail or are taken away."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

__all__ = ["FailureModel", "Outcome", "simulate"]


@dataclass(frozen=True)
class FailureModel:
    """What goes wrong; all of it assumed, none measured.

    Args:
        spread: sigma of the shards' log-normal work.
        slow_nodes, slowness: part of the nodes that are stragglers, and how many times slower.
        lost_per_node_hour: failures and spot losses of a node.
        replaced_h: until a lost node, or another for it, works again.
    """

    spread: float = 0.15
    slow_nodes: float = 0.05
    slowness: float = 1.5
    lost_per_node_hour: float = 0.02
    replaced_h: float = 0.1


@dataclass(frozen=True)
class Outcome:
    """How long it took, in hours, and how well the nodes' time was used (1: nothing wasted)."""

    hours: float
    efficiency: float
    losses: int


def simulate(
    shards: int, shard_h: float, nodes: int, failures: FailureModel, *, shared: bool = True, seed: int = 0
) -> Outcome:
    """Play one run.

    Args:
        shard_h: hours that an average node works on an average shard.
        shared: one queue for all nodes (a Dask cluster); else each node has a partition of its own from the start.

    A node that is lost loses the shard under way, which is done again: by whoever is free if the queue is shared, by
    itself after its return if not.
    """
    if shards < 1 or nodes < 1 or shard_h <= 0:
        raise ValueError("shards, nodes and shard_h must be positive")
    dice = random.Random(seed)
    mean = -(failures.spread**2) / 2  # so that the average work is shard_h
    work = [shard_h * math.exp(dice.gauss(mean, failures.spread)) for _ in range(shards)]
    slow = [failures.slowness if dice.random() < failures.slow_nodes else 1.0 for _ in range(nodes)]
    queues = [deque(work)] * nodes if shared else [deque(work[node::nodes]) for node in range(nodes)]
    return _simulate_once(dice, queues, slow, failures, sum(work))


def _simulate_once(
    rng: random.Random, queues: list[deque[float]], slow: list[float], failures: FailureModel, useful_h: float
) -> Outcome:
    """Every event is a node that becomes free; the shard that it lost, if any, goes back to its queue then."""
    free = [(0.0, node, 0.0) for node in range(len(queues))]
    heapq.heapify(free)
    losses, ended = 0, 0.0
    # A shared queue may be empty now and get a lost shard back later: a free node waits for those still at work.
    waiting: list[int] = []
    while free:
        now, node, lost = heapq.heappop(free)
        if lost:
            queues[node].appendleft(lost)
            while waiting:
                heapq.heappush(free, (now, waiting.pop(), 0.0))
        if not queues[node]:
            waiting.append(node)
            continue
        shard = queues[node].popleft()
        takes = shard * slow[node]
        until_loss = rng.expovariate(failures.lost_per_node_hour) if failures.lost_per_node_hour else math.inf
        if until_loss < takes:
            losses += 1
            # The scheduler notices at once and gives the shard to others; the node itself is back later.
            heapq.heappush(free, (now + until_loss + failures.replaced_h, node, shard))
        else:
            ended = max(ended, now + takes)
            heapq.heappush(free, (now + takes, node, 0.0))
    return Outcome(hours=ended, efficiency=useful_h / (ended * len(queues)), losses=losses)
