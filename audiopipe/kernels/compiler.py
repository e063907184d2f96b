"""Compile functions to machine code with Numba, for kernels on a CPU; without Numba kernels use torch only.

A function is compiled at its first call and kept in Numba's cache: next to its source, or in the user's cache folder
if that is read-only, or else in the folder for temporary files. Processes that start together may compile the same
function; each writes a complete file and renames it. `AUDIOPIPE_COMPILE=0` turns compilation off.

Compiled functions release the GIL. They add in float64 or exactly, or in a fixed order with the operations of
`vectors.py`, so that the width of a machine's vectors does not show in float32 results.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# The compiler may change the order of sums and fuse a product with a sum; NaN and Inf keep their meaning.
_FAST_MATH = {"reassoc", "contract", "nsz"}
_lock = threading.RLock()


@cache
def is_available() -> bool:
    """Check whether Numba is installed and not turned off."""
    return os.environ.get("AUDIOPIPE_COMPILE", "1") != "0" and find_spec("numba") is not None


class CompiledFunction(Generic[Parameters, Result]):
    """A function that is compiled for the types of its arguments when it is called.

    It may call other compiled functions and the operations of `vectors.py`. Numba is imported at the first call,
    because that takes half a second and memory.
    """

    def __init__(self, function: Callable[Parameters, Result]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._dispatcher: Callable[Parameters, Result] | None = None

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return (self._dispatcher or self.resolve())(*args, **kwargs)

    def resolve(self) -> Callable[Parameters, Result]:
        """Return Numba's form of the function."""
        if self._dispatcher is None:
            with _lock:
                self._dispatcher = self._dispatcher or _compile(self._function)
        return self._dispatcher


class VectorOperation(Generic[Parameters, Result]):
    """An operation that `vector_types` defines for Numba under the same name; only compiled functions can call it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        raise NotImplementedError(f"{self._name} is called by a function that is not compiled")

    def resolve(self) -> Callable[Parameters, Result]:
        """Return Numba's form of the operation."""
        operation: Callable[Parameters, Result] = getattr(import_module("audiopipe.kernels.vector_types"), self._name)
        return operation


def _compile(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    numba: Any = import_module("numba")
    dispatcher: Any = numba.njit(nogil=True, fastmath=_FAST_MATH, error_model="numpy")(_link(function))
    try:
        dispatcher._cache = _open_cache(function)
    except RuntimeError:  # neither the folder of the source nor the user's cache folder can be written to
        numba.config.CACHE_DIR = _temporary_folder()
        dispatcher._cache = _open_cache(function)
    compiled: Callable[Parameters, Result] = dispatcher
    return compiled


def _open_cache(function: Any) -> Any:
    """Return Numba's cache of a function, which is valid while the sources of all compiled functions are the same.

    Numba compares only the time of the function's source, but its code contains that of the functions that it calls.
    """
    caching: Any = import_module("numba.core.caching")

    def open_files(function: Any) -> Any:
        files = caching.CompileResultCacheImpl(function)
        files.locator.get_source_stamp = _hash_sources
        return files

    return type("Cache", (caching.FunctionCache,), {"_impl_class": staticmethod(open_files)})(function)


def _link(function: Any) -> FunctionType:
    """Return a copy of a function whose global names of compiled functions and operations are those of Numba."""
    names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    resolved = {
        name: value.resolve() for name, value in names.items() if isinstance(value, CompiledFunction | VectorOperation)
    }
    linked = FunctionType(function.__code__, {**function.__globals__, **resolved}, function.__name__)
    linked.__module__, linked.__qualname__ = function.__module__, function.__qualname__
    return linked


@cache
def _hash_sources() -> str:
    """Return a hash of the sources of all compiled functions, of the operations and of the compiler's options."""
    sources = sorted([*Path(__file__).parent.glob("compile*.py"), *Path(__file__).parent.glob("vector*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _temporary_folder() -> str:
    """Return a folder for the cache that only this user can write to, because code is loaded from it."""
    path = Path(tempfile.gettempdir()) / f"audiopipe-numba-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return str(path)
    return tempfile.mkdtemp(prefix="audiopipe-numba-")
