"""Start or reach a Dask cluster and its workers."""
