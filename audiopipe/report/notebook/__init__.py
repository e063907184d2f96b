"""What the notebooks need of their kernel: their parameters, and where they stand.

`audiopipe.report.notebook.session` has the steps of `run.ipynb`; it is imported apart, because it needs torch and Dask.
"""

from audiopipe.report.notebook.cells import parameters, prepare

__all__ = ["parameters", "prepare"]
