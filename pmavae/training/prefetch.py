"""Batches that are ready when a step wants them: drawn ahead, and moved to the device as bytes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """`draw(start)`, `draw(start + 1)` and so on, called in order by one thread, `depth` steps ahead."""

    def __init__(self, draw: Callable[[int], T], start: int, depth: int = 2) -> None:
        self.waited = 0.0  # seconds that `next` had to wait so far
        self._draw, self._step = draw, start
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._pending: deque[Future[T]] = deque()
        for _ in range(depth):
            self._submit()

    def next(self) -> T:
        """The batch of the next step; raises what drawing it raised."""
        self._submit()
        began = time.perf_counter()
        try:
            return self._pending.popleft().result()
        finally:
            self.waited += time.perf_counter() - began

    def close(self) -> None:
        """Draw no more; waits for a draw that has begun."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self) -> None:
        self._pending.append(self._pool.submit(self._draw, self._step))
        self._step += 1


def to_device(crops: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1] on a device, in channels-last memory.

    To CUDA it travels as bytes from pinned memory, while the caller goes on.
    """
    on_cuda = device.type == "cuda"
    batch = torch.from_numpy(crops)
    batch = (batch.pin_memory() if on_cuda else batch).to(device, non_blocking=on_cuda)
    return batch.permute(0, 3, 1, 2).float().div_(255)
