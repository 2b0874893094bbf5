"""How much memory the working sets of a run may take: bands, tiles, strips."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

SMALLEST = 64 << 20  # below it, bands and tiles are mostly margin, and a wide picture takes more anyway
SHARE = 0.8  # of the free memory, where nothing is said
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class SizeType(click.ParamType):
    """A number of bytes: 2G, 800M, 1.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([KMGT]?)(?:I?B)?", value.strip().upper())
        if not found:
            self.fail(f"{value!r} is not a size such as 2G or 800M.", param, ctx)
        size = int(float(found[1]) * _UNITS[found[2]])
        if size < SMALLEST:
            self.fail(
                f"{value!r} is too little: {SMALLEST >> 20}M is the smallest that would do.", param, ctx
            )
        return size


def free_memory() -> int | None:
    """Bytes that could be had without swapping; None on a system that does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+([0-9]+) kB", Path("/proc/meminfo").read_text("ascii"), re.M)
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None


def budget(asked: int | None, usual: int) -> int:
    """What working sets may take: what is asked for, else `usual`, or less where less is free."""
    if asked is not None:
        return asked
    free = free_memory()
    return usual if free is None else max(SMALLEST, min(usual, int(SHARE * free)))
