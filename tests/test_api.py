"""`import audiopipe` is quick and offers everything that the command does."""

from __future__ import annotations

import subprocess
import sys

import pytest

import audiopipe

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "dask", "distributed", "fsspec", "duckdb", "pydantic")


def test_import_brings_nothing_heavy_along() -> None:
    code = "import sys, audiopipe; print(*[name for name in sys.argv[1:] if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert output.stdout.split() == []


@pytest.mark.parametrize("name", audiopipe.__all__)
def test_each_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(audiopipe, name)
    assert name.startswith("__") or value.__doc__
    assert name in dir(audiopipe)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        audiopipe.nonsense  # noqa: B018
