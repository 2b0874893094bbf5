"""What the C library does with freed memory: give it back to the system, or keep it for the next step."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Give back what is free: glibc keeps blocks of up to 32 MB, which the next step may need elsewhere.

    Takes milliseconds. Other C libraries have no such call, and nothing happens.
    """
    if call := _malloc_trim():
        call(0)


# Of glibc's malloc.h: from which size a block is a mapping of its own, how much may lie free at the end of
# the heap, and how much more than asked for the heap grows by.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2


def keep() -> None:
    """Have freed memory kept from now on: a training step needs the blocks of the step before it again.

    Otherwise large blocks go back to the system and are fetched page by page, some 25,000 times a step. The
    process stays as large as it was at its largest. Other C libraries have no such call, and nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for parameter, value in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
        mallopt(parameter, value)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        call: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return call
