"""Compile functions to machine code with Numba, for kernels on a CPU; without Numba kernels use torch only.

A function is compiled at its first call and kept in Numba's cache: next to its source, or in the user's cache folder
if that is read-only, or else in the folder for temporary files. Processes that start together may compile the same
function; each writes a complete file and renames it. `AUDIOPIPE_COMPILE=0` turns compilation off.

Compiled functions release the GIL. They add in float64 or exactly, so that the width of a machine's vectors, which
decides the order of sums, does not show in float32 results.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# The compiler may change the order of sums and fuse a product with a sum; NaN and Inf keep their meaning.
_FAST_MATH = {"reassoc", "contract", "nsz"}
_lock = threading.Lock()


@cache
def is_available() -> bool:
    """Check whether Numba is installed and not turned off."""
    return os.environ.get("AUDIOPIPE_COMPILE", "1") != "0" and find_spec("numba") is not None


class CompiledFunction(Generic[Parameters, Result]):
    """A function that is compiled for the types of its arguments when it is called.

    Numba is imported at the first call, because that takes half a second and memory.
    """

    def __init__(self, function: Callable[Parameters, Result]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._dispatcher: Callable[Parameters, Result] | None = None

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if self._dispatcher is None:
            with _lock:
                self._dispatcher = self._dispatcher or _compile(self._function)
        return self._dispatcher(*args, **kwargs)


def _compile(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    numba: Any = import_module("numba")
    compiler = numba.njit(nogil=True, fastmath=_FAST_MATH, error_model="numpy", cache=True)
    try:
        dispatcher: Callable[Parameters, Result] = compiler(function)
    except RuntimeError:  # neither the folder of the source nor the user's cache folder can be written to
        numba.config.CACHE_DIR = _temporary_folder()
        dispatcher = compiler(function)
    return dispatcher


def _temporary_folder() -> str:
    """Return a folder for the cache that only this user can write to, because code is loaded from it."""
    path = Path(tempfile.gettempdir()) / f"audiopipe-numba-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return str(path)
    return tempfile.mkdtemp(prefix="audiopipe-numba-")
