"""Freed memory back to the system, where the C library keeps it for later."""

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


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        call: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return call
