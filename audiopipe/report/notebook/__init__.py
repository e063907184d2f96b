"""Functions that notebooks call: read their parameters, and run `run.ipynb` step by step.

`audiopipe.report.notebook.session` has the steps of `run.ipynb`. It is a separate import, because it needs torch and
Dask.
"""

from audiopipe.report.notebook.cells import prepare, read_config, read_parameters

__all__ = ["prepare", "read_config", "read_parameters"]
