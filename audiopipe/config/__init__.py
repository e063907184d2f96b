"""Define and validate every parameter of a run, in one flat, frozen model.

The notebooks' parameter cells, papermill's `-p`, the options of the command and Python callers all build a `RunConfig`,
and no other module reads a parameter from elsewhere. Secrets are not parameters: stores and databases read them from
the environment.
"""

from audiopipe.config.run_config import OUTPUT_VERSION, RunConfig

__all__ = ["OUTPUT_VERSION", "RunConfig"]
