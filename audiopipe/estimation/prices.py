"""Read the price table: machines, traffic, storage and the ledger, each row with its date and source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from audiopipe.errors import ConfigError

__all__ = ["Instance", "LedgerPrice", "PriceTable", "Provider", "StoragePrices", "load_prices"]

SECTIONS = ("instances", "ledger", "providers", "store")


@dataclass(frozen=True)
class Instance:
    """A machine to rent. `vcpus` counts hardware threads; the speed of codecs scales with `cores`."""

    name: str
    provider: str
    vcpus: int
    threads_per_core: int
    gpu: str | None
    gpus: int
    memory_gb: int
    usd_hour: float
    market: str
    as_of: date
    source: str

    @property
    def cores(self) -> int:
        return self.vcpus // self.threads_per_core


@dataclass(frozen=True)
class Provider:
    """A cloud's price for each GB that leaves it."""

    egress_usd_gb: float
    as_of: date
    source: str


@dataclass(frozen=True)
class StoragePrices:
    """The object store's prices."""

    usd_gb_month: float
    usd_million_writes: float
    usd_million_reads: float
    as_of: date
    source: str


@dataclass(frozen=True)
class LedgerPrice:
    """The price of the hosted ledger database."""

    usd_month: float
    as_of: date
    source: str


@dataclass(frozen=True)
class PriceTable:
    """All prices of an estimate."""

    instances: tuple[Instance, ...]
    providers: dict[str, Provider]
    store: StoragePrices
    ledger: LedgerPrice

    def __post_init__(self) -> None:
        if unknown := {instance.provider for instance in self.instances} - self.providers.keys():
            raise ConfigError(
                f"the price table has no egress price of {', '.join(sorted(unknown))}; add it to `providers`"
            )

    def instances_of(self, provider: str | None) -> tuple[Instance, ...]:
        """Return the machines of one provider, or of all if None.

        Raises:
            ConfigError: the table has no machine of this provider.
        """
        matches = tuple(instance for instance in self.instances if provider in (None, instance.provider))
        if not matches:
            known = ", ".join(sorted({instance.provider for instance in self.instances})) or "none"
            wanted = "no machines" if provider is None else f"no machine of '{provider}'; known providers: {known}"
            raise ConfigError(f"the price table has {wanted}")
        return matches


def load_prices() -> PriceTable:
    """Load the table that `AUDIOPIPE_PRICES` names, or the packaged one.

    Raises:
        ConfigError: the file cannot be read or has a missing section or field.
    """
    return _load(os.environ.get("AUDIOPIPE_PRICES"))


@cache
def _load(path: str | None) -> PriceTable:
    name = path or "prices.yaml"
    try:
        source = Path(path) if path else files("audiopipe.estimation") / "prices.yaml"
        table = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the price table {name}: {error}") from None
    if not isinstance(table, dict) or (missing := [section for section in SECTIONS if section not in table]):
        absent = ", ".join(missing) if isinstance(table, dict) else ", ".join(SECTIONS)
        raise ConfigError(f"the price table {name} has no {absent}")
    try:
        return PriceTable(
            instances=tuple(Instance(**row) for row in table["instances"]),
            providers={provider: Provider(**row) for provider, row in table["providers"].items()},
            store=StoragePrices(**table["store"]),
            ledger=LedgerPrice(**table["ledger"]),
        )
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"the price table {name} has an invalid row: {error}") from None
