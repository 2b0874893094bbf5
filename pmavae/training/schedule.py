"""Where a run stands: which phase, which learning rate.

Everything follows from the progress alone, a number from 0 to 1, so a run resumes where it stopped,
whether its length was given in steps or in time.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

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


@dataclass
class Clock:
    """How far a run has come: of a number of steps, or else of a time in seconds over all its sessions."""

    steps: int = 0
    limit: float = 0.0
    first: int = 0  # step, where the run branched off another
    started: float = field(default_factory=time.monotonic)

    def begin(self, first: int, elapsed: float) -> None:
        """Start to count now, after what earlier sessions took, in seconds."""
        self.first, self.started = first, time.monotonic() - elapsed

    def progress(self, step: int) -> float:
        """0 to 1, before this step."""
        if self.steps:
            return min(1.0, (step - self.first) / self.steps)
        return min(1.0, (time.monotonic() - self.started) / self.limit)
