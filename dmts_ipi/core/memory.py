"""Freed memory is kept by the process instead of being handed back to the kernel."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc
INT_MAX = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc's malloc serve large blocks from its heap, and never shrink that heap.

    A network allocates and frees the same large tensors at every evaluation. By default glibc
    maps and unmaps each of them, and the kernel fills every page with zeros again: a quarter of
    the time of a MACE teacher of 648 atoms (benchmarks/results/evaluation_time.txt). The price is
    that a process keeps its peak. To be called before the first evaluation.

    Returns:
        Whether the C library took it; False where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, INT_MAX))
