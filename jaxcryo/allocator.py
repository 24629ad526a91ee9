"""Settings of the C library's memory allocator for processes that compute on the CPU."""

from __future__ import annotations

import ctypes

# Of glibc's malloc.h. One arena, since the others map and unmap what is above 64 MB whatever the settings.
_SETTINGS = {"trim threshold": (-1, -1), "top pad": (-2, 64 << 20), "mmap max": (-4, 0), "arena max": (-8, 1)}


def keep_freed_memory() -> bool:
    """Keeps freed memory in the process; False where the C library is not glibc.

    XLA allocates the arrays of every step anew. By default glibc gets large ones from the system and gives them back
    at once, and the system clears and maps every page again: that takes far longer than to fill it. The process stays
    as large as it ever was. To be called before JAX starts its threads.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(key, value) == 1 for key, value in _SETTINGS.values())
