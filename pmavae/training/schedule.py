"""Where a run stands: which phase, which learning rate.

Everything follows from the progress alone, a number from 0 to 1, so a run resumes where it stopped,
whether its length was given in steps or in time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from pmavae.training.phases import Phase


@dataclass(frozen=True)
class Position:
    """A point of the schedule."""

    progress: float  # of the run, 0 to 1
    index: int  # of the phase
    phase: Phase
    within: float  # progress within the phase, 0 to 1

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, the phase's rate, then half a cosine to its final rate."""
        phase = self.phase
        rise = min(1.0, self.within / phase.warmup) if phase.warmup else 1.0
        fallen = (self.within - 1 + phase.decay) / phase.decay if phase.decay else 0.0
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, fallen))))
        return rise * (phase.final_rate + (phase.learning_rate - phase.final_rate) * fall)


def position(phases: Sequence[Phase], progress: float) -> Position:
    """The phase at a progress of the run, shares being relative to their sum."""
    total = sum(phase.share for phase in phases)
    ends = [end / total for end in accumulate(phase.share for phase in phases)]
    # A step that begins on a boundary belongs to the next phase, rounding errors or not.
    index = next((i for i, end in enumerate(ends) if progress < end - 1e-9), len(phases) - 1)
    begin = ends[index - 1] if index else 0.0
    within = min(1.0, max(0.0, (progress - begin) / (ends[index] - begin)))
    return Position(progress, index, phases[index], within)


class Clock(Protocol):
    """How far a run has come."""

    def progress(self, step: int) -> float:
        """0 to 1, before this step."""


@dataclass
class StepClock:
    """A run of a given number of steps."""

    steps: int
    first: int = 0  # where it branched off another run

    def progress(self, step: int) -> float:
        return min(1.0, (step - self.first) / self.steps)


class TimeClock:
    """A run of a given time in seconds, over all its sessions."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.begin()

    def begin(self, elapsed: float = 0.0) -> None:
        """Start to count now, after what earlier sessions took, in seconds."""
        self.started = time.monotonic() - elapsed

    def progress(self, step: int) -> float:
        return min(1.0, (time.monotonic() - self.started) / self.limit)
