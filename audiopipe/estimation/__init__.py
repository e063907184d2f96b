"""What a run will take before it is started: nodes, hours, money, and how sure one can be.

Rates come from measurements where there are some and from the design's figures where there are none, prices from a
table with a date and a source in each row; both say so in everything that is shown.
"""

from audiopipe.estimation.estimate import Costs, Estimate, Workload, choices, estimate
from audiopipe.estimation.prices import Instance, Provider, instances, providers
from audiopipe.estimation.rates import Rates, load_rates
from audiopipe.estimation.simulate import FailureModel, Outcome, simulate
from audiopipe.estimation.theirs import ThePlan

__all__ = [
    "Costs",
    "Estimate",
    "FailureModel",
    "Instance",
    "Outcome",
    "Provider",
    "Rates",
    "ThePlan",
    "Workload",
    "choices",
    "estimate",
    "instances",
    "load_rates",
    "providers",
    "simulate",
]
