"""Functions timed in turn in one process: what disturbs a machine disturbs them alike.

Import it from a benchmark beside it; it prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The cheapest of several calls, in seconds."""

    wall: float
    processor: float  # of all threads, user and system; who else is on the machine hardly changes it
    spread: float  # of the wall times: median over minimum


def in_turn(functions: dict[str, Callable[[], object]], runs: int) -> dict[str, Cost]:
    """Every function once uncounted, then `runs` rounds of all of them."""
    for function in functions.values():
        function()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            wall, processor = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: _cost(rounds) for name, rounds in times.items()}


def _cost(rounds: list[tuple[float, float]]) -> Cost:
    walls = sorted(wall for wall, _ in rounds)
    return Cost(walls[0], min(processor for _, processor in rounds), walls[len(walls) // 2] / walls[0])
