"""Import packages that only an extra of this package installs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from audiopipe.errors import MissingExtra

__all__ = ["missing_extra", "require_extra"]


@contextmanager
def require_extra(extra: str, purpose: str) -> Iterator[None]:
    """Raise `MissingExtra` if an import in the `with` block fails because a package is not installed.

    Args:
        extra: the extra that installs the package.
        purpose: the start of the message, for example "the cluster profile 'ssh'".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "audiopipe":
            raise
        raise missing_extra(purpose, error, extra) from None


def missing_extra(purpose: str, error: ImportError, extra: str | None) -> MissingExtra:
    """Return the error for a failed import: one line with the package and the command that installs it."""
    package = (error.name or str(error)).partition(".")[0]
    target = package if extra is None else f"'audiopipe[{extra}]'"
    return MissingExtra(f"{purpose} needs the package {package}: pip install {target}")
