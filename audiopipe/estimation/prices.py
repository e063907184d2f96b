"""The price table: machines, traffic, storage, each row with its date and source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from audiopipe.errors import ConfigError

__all__ = ["Instance", "Provider", "StoragePrices", "instances", "ledger_usd_month", "providers", "store"]


@dataclass(frozen=True)
class Instance:
    """A machine that can be rented. `vcpus` are threads; `cores` is what codecs scale with."""

    name: str
    provider: str
    vcpus: int
    threads_per_core: int
    gpu: str | None
    gpus: int
    memory_gb: int
    usd_hour: float
    market: str
    read: date
    source: str

    @property
    def cores(self) -> int:
        return self.vcpus // self.threads_per_core


@dataclass(frozen=True)
class Provider:
    """What a cloud takes for each GB that leaves it."""

    egress_usd_gb: float
    read: date
    source: str


@dataclass(frozen=True)
class StoragePrices:
    """What the object store takes."""

    usd_gb_month: float
    usd_million_writes: float
    usd_million_reads: float
    read: date
    source: str


@cache
def _table(path: str | None) -> dict[str, Any]:
    text = Path(path).read_text() if path else (files("audiopipe.estimation") / "prices.yaml").read_text()
    table: dict[str, Any] = yaml.safe_load(text)
    if missing := {"instances", "providers", "store", "ledger"} - table.keys():
        raise ConfigError(f"{path}: the price table has no {', '.join(sorted(missing))}")
    return table


def _prices() -> dict[str, Any]:
    return _table(os.environ.get("AUDIOPIPE_PRICES"))


def instances(provider: str | None = None) -> list[Instance]:
    """The machines of one provider, or of all.

    Raises:
        ConfigError: the table has none of this provider.
    """
    rows = [Instance(**row) for row in _prices()["instances"]]
    found = [row for row in rows if provider in (None, row.provider)]
    if not found:
        known = ", ".join(sorted({row.provider for row in rows}))
        raise ConfigError(f"the price table has no machine of '{provider}': known are {known}")
    return found


def providers() -> dict[str, Provider]:
    return {name: Provider(**row) for name, row in _prices()["providers"].items()}


def store() -> StoragePrices:
    return StoragePrices(**_prices()["store"])


def ledger_usd_month() -> float:
    return float(_prices()["ledger"]["usd_month"])
