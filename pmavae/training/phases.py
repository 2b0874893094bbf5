"""The parts of a run, and which ones it has where nothing is said. Nothing here imports torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Phase:
    """A part of the run with one objective, one crop size, one batch and one learning rate.

    The objective "codec" trains everything but the paint to reconstruct; "paint" trains the paint alone,
    on a codec that it cannot change, to restyle; "restore" trains a restoration network, "prior" a texture
    prior; "plugin" trains what a plugin says.
    """

    name: str
    share: float  # of the run's steps, or of its time
    crop: int  # px of what the network is given, a multiple of 16
    batch: int  # crops an optimizer step, over all processes and micro-batches
    learning_rate: float = 1e-3  # after the warm-up, for the network
    final_rate: float = 0.0  # at the end; between the two, half a cosine …
    decay: float = 1.0  # … over this last share of the phase: a run that is constant before can be prolonged
    warmup: float = 0.02  # share of the phase in which the rate rises from nothing
    accumulate: int = 1  # micro-batches an optimizer step: more of them need less memory
    objective: Literal["codec", "paint", "restore", "prior", "plugin"] = "codec"


# As micro-batches that leave room for the preset base on a GPU of 16 GiB.
DEFAULT_PHASES = (
    Phase("structure", 0.35, crop=256, batch=32, learning_rate=1.5e-3, final_rate=1e-3, accumulate=2),
    Phase("texture", 0.2, crop=384, batch=16, learning_rate=1e-3, final_rate=6e-4, accumulate=2),
    Phase("detail", 0.15, crop=512, batch=8, learning_rate=6e-4, final_rate=3e-4, accumulate=2),
    Phase("full-hd", 0.1, crop=960, batch=4, learning_rate=3e-4, accumulate=4),
    Phase("paint", 0.2, crop=256, batch=16, learning_rate=2e-3, objective="paint"),
)

# One CPU core sees a thousand times fewer pixels: small crops give it more steps, and steps are scarce.
CPU_PHASES = (
    Phase("structure", 0.5, crop=128, batch=8, learning_rate=1.3e-3, final_rate=1e-3),
    Phase("texture", 0.2, crop=192, batch=4, learning_rate=1e-3, final_rate=3e-4),
    Phase("detail", 0.05, crop=256, batch=4, learning_rate=3e-4),
    Phase("paint", 0.25, crop=128, batch=4, learning_rate=2e-3, objective="paint"),
)

# The crops of a restoration are small: what it needs to see is near.
RESTORE_PHASES = (
    Phase("small crops", 0.7, crop=96, batch=32, learning_rate=2e-3, final_rate=5e-4, objective="restore"),
    Phase("large crops", 0.3, crop=192, batch=16, learning_rate=5e-4, objective="restore"),
)
CPU_RESTORE_PHASES = (
    Phase("small crops", 0.75, crop=64, batch=16, learning_rate=2e-3, final_rate=5e-4, objective="restore"),
    Phase("large crops", 0.25, crop=96, batch=16, learning_rate=5e-4, objective="restore"),
)

# Statistics are those of a whole crop, so it should hold as much as a small picture does.
PRIOR_PHASES = (
    Phase("textures", 0.6, crop=256, batch=32, learning_rate=1e-3, final_rate=5e-4, objective="prior"),
    Phase("pictures", 0.4, crop=512, batch=16, learning_rate=5e-4, objective="prior"),
)
CPU_PRIOR_PHASES = (
    Phase("textures", 0.7, crop=256, batch=4, learning_rate=1e-3, final_rate=5e-4, objective="prior"),
    Phase("pictures", 0.3, crop=384, batch=2, learning_rate=5e-4, objective="prior"),
)

# What each task can be trained with, and the phases of a run that brings none: on a GPU, on a CPU.
_RESTORING = ("restore",), RESTORE_PHASES, CPU_RESTORE_PHASES
_TASKS: dict[str, tuple[tuple[str, ...], tuple[Phase, ...], tuple[Phase, ...]]] = {
    "base": (("codec", "paint"), DEFAULT_PHASES, CPU_PHASES),
    "denoise": _RESTORING,
    "upscale": _RESTORING,
    "texture-vary": (("prior",), PRIOR_PHASES, CPU_PRIOR_PHASES),
}
OBJECTIVES = {task: objectives for task, (objectives, _, _) in _TASKS.items()}


def default_phases(task: str, on_cpu: bool) -> tuple[Phase, ...]:
    """The phases of a run of a task that brings none."""
    _, on_gpu, small = _TASKS[task]
    return small if on_cpu else on_gpu
