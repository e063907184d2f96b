"""Start or join Dask clusters, on this machine and elsewhere."""
