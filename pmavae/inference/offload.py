"""How much memory features may take, and maps that take more: in files without a name, mapped into it.

The coarse stages of a network see a picture as a whole, so their maps grow with it. What is computed from
them goes strip by strip; a map that lives in a file need not stay resident between strips. Its pages are the
system's to write out and to fetch again; where memory is free they stay there. At the end, what the C library
does with memory that is freed.
"""

import ctypes
import math
import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from weakref import WeakSet

import torch
from torch import Tensor

from pmavae.config import BASE_STRIDE
from pmavae.inference.fused import strips_of

LIVE = 2.0  # maps of the widest features that live at the same time
RESIDENT = 64 << 20  # bytes of maps in files that are touched before they are let go

_mapped: WeakSet[mmap.mmap] = WeakSet()
_touched = 0


@dataclass(frozen=True)
class Budget:
    """Bytes that features may take at a time, about: what needs more is computed part by part."""

    strip: int = 144 << 20  # of a strip of a picture that is encoded or decoded; larger maps are in files
    tile: int = 448 << 20  # of a tile of a picture that is restored

    def rows(self, width: int, channels: int) -> int:
        """Rows of 16 px of a picture whose features, so many channels at a stride of 2, are a strip."""
        row_bytes = width / 2 * channels * 4 * (BASE_STRIDE / 2) * LIVE
        return max(1, int(self.strip / row_bytes))


def empty_map(shape: tuple[int, ...], like: Tensor, budget: Budget | None) -> Tensor:
    """A map (B, C, H, W) in channels-last memory, of the kind and on the device of `like`, with any values.

    In memory where it is small or has no budget, no CPU's, or where no file can have so many bytes.
    """
    elements = math.prod(shape)
    size = elements * like.element_size()
    if budget and size > budget.strip and like.device.type == "cpu" and (pages := _new_file(size)):
        if hasattr(pages, "madvise"):  # elsewhere the system finds out by itself
            _mapped.add(pages)
            pages.madvise(mmap.MADV_RANDOM)  # else a column read brings in megabytes around each of its rows
        flat = torch.frombuffer(pages, dtype=like.dtype, count=elements)
        return flat.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def let_go(touched: int) -> None:
    """Say that so many bytes of maps have been read or written; now and then they cease to be resident."""
    global _touched
    _touched += touched
    if _touched < RESIDENT:
        return
    _touched = 0
    for pages in list(_mapped):
        pages.madvise(mmap.MADV_DONTNEED)  # of a shared file: its values stay


def in_strips(
    layer: Callable[[Tensor], Tensor],
    x: Tensor,
    channels: int,
    budget: Budget | None,
    *,
    reach: int = 0,
    rows_in: int = 1,
    rows_out: int = 1,
) -> Tensor:
    """layer(x), a map of so many channels; strip by strip where there is a budget to keep.

    The layer makes `rows_out` rows of every `rows_in`, and columns alike, and looks `reach` times as many
    rows up and down.
    """
    if budget is None:
        return layer(x)
    batch, _, height, width = x.shape
    shape = (batch, channels, height * rows_out // rows_in, width * rows_out // rows_in)
    result = empty_map(shape, x, budget)
    units = height // rows_in
    step = max(1, strips_of(result, max(channels, x.shape[1]))[0].stop // rows_out)
    for first in range(0, units, step):
        last = min(first + step, units)
        top, bottom = max(0, first - reach), min(units, last + reach)
        made = layer(x[:, :, top * rows_in : bottom * rows_in])
        inner = made[:, :, (first - top) * rows_out : (last - top) * rows_out]
        result[:, :, first * rows_out : last * rows_out] = inner
        let_go((inner.numel() + x[:, :, top * rows_in : bottom * rows_in].numel()) * x.element_size())
    return result


def both_in_strips(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    base: Tensor,
    detail: Tensor,
    budget: Budget | None,
) -> tuple[Tensor, Tensor]:
    """step(base, detail), of the same two shapes; strip by strip where that saves memory.

    detail has twice as many rows as base, and a row of base is computed with its two.
    """
    if budget is None:
        return step(base, detail)
    wholes = empty_map(tuple(base.shape), base, budget), empty_map(tuple(detail.shape), detail, budget)
    for rows in strips_of(base, 4 * max(base.shape[1], detail.shape[1])):
        twice = slice(2 * rows.start, 2 * rows.stop)
        wholes[0][:, :, rows], wholes[1][:, :, twice] = step(base[:, :, rows], detail[:, :, twice])
        let_go(2 * (base[:, :, rows].numel() + detail[:, :, twice].numel()) * base.element_size())
    return wholes


def added(x: Tensor, other: Tensor) -> Tensor:
    """x + other, in the place of x."""
    for rows in strips_of(x, x.shape[1]):
        x[:, :, rows].add_(other[:, :, rows])
        let_go(2 * other[:, :, rows].numel() * x.element_size())
    return x


def _new_file(size: int) -> mmap.mmap | None:
    """So many bytes of a file, reserved: a mapped file that cannot grow would end the process."""
    folder = Path("/var/tmp")  # /tmp is memory on many systems
    usable = "TMPDIR" not in os.environ and folder.is_dir() and os.access(folder, os.W_OK)
    try:
        with tempfile.TemporaryFile(dir=folder if usable else tempfile.gettempdir()) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return mmap.mmap(file.fileno(), size)
    except OSError:
        return None


def trim() -> None:
    """Give back what is free: glibc keeps blocks of up to 32 MB, which the next step may need elsewhere.

    Takes milliseconds. Other C libraries have no such call, and nothing happens.
    """
    if call := _of_malloc("malloc_trim"):
        call(0)


# Of glibc's malloc.h: from which size a block is a mapping of its own, how much may lie free at the end of
# the heap, and how much more than asked for the heap grows by.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2


def keep_freed_memory() -> None:
    """Have freed memory kept from now on: a training step needs the blocks of the step before it again.

    Otherwise large blocks go back to the system and are fetched page by page, some 25,000 times a step. The
    process stays as large as it was at its largest. Other C libraries have no such call, and nothing happens.
    """
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))
    if mallopt := _of_malloc("mallopt"):
        for parameter, value in settings:
            mallopt(parameter, value)


@cache
def _of_malloc(name: str) -> Callable[..., int] | None:
    try:
        call: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return call
