"""What the benchmarks of this repository measured, beside what was there before and beside the bars to be met.

`saved` reads the files that `audiopipe bench … --save` writes; `bars` and `tables` show them.
"""

from audiopipe.report.benches.bars import bars, headline
from audiopipe.report.benches.saved import PARAMETERS, Saved, read_results
from audiopipe.report.benches.tables import history, kernels, pipeline, scale

__all__ = ["PARAMETERS", "Saved", "bars", "headline", "history", "kernels", "pipeline", "read_results", "scale"]
