"""Keep freed memory with the process, so that the next training step takes it again without the kernel.

glibc returns large blocks to the kernel as soon as they're freed, so every activation of every step is made of fresh
pages, which the kernel must find, clear and map. Kept, and in huge pages, they cost next to nothing, and the bits are
the same (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Torch's environment variable, which it reads at its first allocation: blocks above 2 MiB ask for huge pages."""
_OPTIONS = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 1 << 26), "M_MMAP_THRESHOLD": (-3, 2**31 - 1)}
"""Parameters and values for mallopt (malloc.h): nothing up to 2 GiB is mapped separately or trimmed; the heap grows by
64 MiB."""


def keep_freed_memory() -> bool:
    """Make this process keep the memory that it frees; return whether the C library accepted all settings.

    Call it before the first tensor is made. Variables that the user set in the environment win: torch's and glibc's
    own (MALLOC_MMAP_THRESHOLD_ and so on). Where the C library isn't glibc, nothing happens.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    accepted = [
        bool(mallopt(number, value))
        for name, (number, value) in _OPTIONS.items()
        if f"MALLOC_{name.removeprefix('M_')}_" not in os.environ
    ]
    return all(accepted)
