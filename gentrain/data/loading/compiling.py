"""FFCV without the waiting for Numba, and without threads of torch's: import this before FFCV.

FFCV keeps its two image modes in a typed dictionary, for which Numba compiles 3 s in every process. It is only ever
read by Python, so an ordinary one does as well. Every loader compiles its code anew, and no process gives compiled code
back: here the same function is compiled once, when it is first called, and one that is `plain` never.

FFCV also sets torch's threads, its reading thread's too. As soon as two threads have OpenMP threads of their own, there
are more than cores, and all of them sleep between the parts of a step instead of waiting awake: a quarter of the speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.typed
import numpy as np

_typed, numba.typed.Dict = numba.typed.Dict, dict
try:
    from ffcv.pipeline.compiler import Compiler  # and with its package the image field
finally:
    numba.typed.Dict = _typed

_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function of a pipeline as one that Python runs as it is."""
    function.plain = True  # type: ignore[attr-defined]
    return function


def _compile_once(cls: type[Compiler], function: Any, _signature: Any = None) -> Callable[..., Any]:
    """Do as FFCV's `Compiler.compile`, once for a function with what it closes over; types are those of its calls."""
    if getattr(function, "plain", False):
        found: Callable[..., Any] = function
        return found
    parallel = getattr(function, "is_parallel", False) and cls.num_threads > 1
    enclosed = tuple(_identity(cell.cell_contents) for cell in function.__closure__ or ())
    key = (function.__module__, function.__code__, enclosed, parallel)
    if key not in _compiled:
        options = {"fastmath": True, "nogil": True, "error_model": "numpy", "parallel": parallel}
        _compiled[key] = numba.njit(**options)(function)  # which keeps what the key names by its place in memory
    return _compiled[key]


def _identity(value: Any) -> Any:
    return (type(value), value) if isinstance(value, (int, float, str, np.generic)) else id(value)


def _set_num_threads(cls: type[Compiler], count: int) -> None:
    """Set the threads of what is compiled, if anything is; torch's are the trainer's affair."""
    cls.num_threads = count
    if _compiled:
        numba.set_num_threads(count)


Compiler.compile = classmethod(_compile_once)
Compiler.set_num_threads = classmethod(_set_num_threads)
