"""Refuse what cannot work before PyTorch and Dask are imported, which takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from audiopipe.config import RunConfig

__all__ = ["check_output", "check_run"]


def check_run(config: RunConfig) -> None:
    """Check the cluster profile of a run, and the catalog of a new output.

    A remote catalog is read only when the run is planned, because to read it twice would take longer; here it must
    exist.

    Raises:
        ConfigError: the profile does not exist.
        CatalogError: the catalog is missing, or a local one is invalid.
    """
    from audiopipe.cluster.profiles import check_profile

    check_profile(config.cluster)
    from audiopipe.catalog.read import read_catalog
    from audiopipe.plan.files import PLAN_FOLDER
    from audiopipe.store.local_files import is_local
    from audiopipe.store.objects import Store

    if Store(config.output).list(PLAN_FOLDER):
        return
    if is_local(config.catalog) or _is_missing(config.catalog):
        with _without_warnings("audiopipe.catalog"):  # the plan, which reads it again, gives them
            read_catalog(config)


@contextmanager
def _without_warnings(logger: str) -> Iterator[None]:
    """Hold back the warnings of a logger and of those below it."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def check_output(output: str, cluster: object = None) -> None:
    """Check an output that exists, and the cluster profile to continue it on; None stands for the default.

    Raises:
        ConfigError: the profile does not exist.
        VerifyError: the address does not hold the output of a run.
    """
    if cluster is not None:
        from audiopipe.cluster.profiles import check_profile

        check_profile(str(cluster))
    from audiopipe.dataset.run_record import read_run_record
    from audiopipe.store.objects import Store

    read_run_record(Store(output))


def _is_missing(catalog: str) -> bool:
    """Check whether a table at a remote address does not exist; a folder, a glob or a database is not examined."""
    from audiopipe.catalog.read_errors import READ_ERRORS
    from audiopipe.catalog.tables import table_format
    from audiopipe.store.objects import open_filesystem

    if table_format(catalog) is None:
        return False
    try:
        filesystem, path = open_filesystem(catalog)
        return not filesystem.exists(path)
    except READ_ERRORS:
        return True
