"""The report of the benchmarks: measurements compared with other implementations and with the targets.

`results` reads the files that `audiopipe bench … --save` writes; `targets` and `tables` show them.
"""

from audiopipe.report.benchmarks.results import PARAMETERS, ResultFiles, read_results
from audiopipe.report.benchmarks.tables import history, kernels, pipeline, scale, scorers
from audiopipe.report.benchmarks.targets import headline, targets

__all__ = [
    "PARAMETERS",
    "ResultFiles",
    "headline",
    "history",
    "kernels",
    "pipeline",
    "read_results",
    "scale",
    "scorers",
    "targets",
]
