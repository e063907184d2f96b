"""Forecast the time and cost of a run before it starts.

`estimate` compares the machines of the price table; `simulate` shows how stragglers and lost nodes change the answer.
Rates come from saved benchmarks where they exist and are assumed otherwise; prices come from a table in which each row
has a date and a source. A report on an estimate states both.
"""

from audiopipe.estimation.costs import Costs, InstanceEstimate, Workload, estimate_instance
from audiopipe.estimation.estimate import Estimate, estimate
from audiopipe.estimation.prices import Instance, PriceTable, Provider, load_prices
from audiopipe.estimation.rates import Rates, load_rates
from audiopipe.estimation.simulate import FailureModel, Outcome, simulate

__all__ = [
    "Costs",
    "Estimate",
    "FailureModel",
    "Instance",
    "InstanceEstimate",
    "Outcome",
    "PriceTable",
    "Provider",
    "Rates",
    "Workload",
    "estimate",
    "estimate_instance",
    "load_prices",
    "load_rates",
    "simulate",
]
