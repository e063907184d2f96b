"""What the notebooks need of their kernel: their parameters, and where they stand.

`audiopipe.report.notebook.session` has the steps of `run.ipynb`; it is imported apart, because it needs torch and Dask.
"""

from audiopipe.report.notebook.cells import prepare, read_parameters

__all__ = ["prepare", "read_parameters"]
