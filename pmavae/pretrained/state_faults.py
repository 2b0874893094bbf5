"""How the tensors of a state dict differ from those of a network, in words for a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def state_faults(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A few words for each tensor that is missing, unknown or of another shape; none where all fit."""
    return [
        *(f"it has no {name}" for name in expected if name not in state),
        *(f"{name:.80} is unknown" for name in state if name not in expected),
        *(
            f"{name} has the shape {sides(state[name].shape)} instead of {sides(shape)}"
            for name, shape in expected.items()
            if name in state and tuple(state[name].shape) != shape
        ),
    ]


def sides(shape: Iterable[int]) -> str:
    """A shape for messages: 3 × 4."""
    return " × ".join(map(str, shape)) or "a single number"
