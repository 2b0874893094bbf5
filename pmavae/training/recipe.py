"""The numbers of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """One phase of training.

    The objective "codec" trains everything but the paint; "paint" trains the paint alone, on a codec
    that it cannot change.
    """

    objective: Literal["codec", "paint"] = "codec"

    steps: int = 6000
    batch: int = 8  # crops a step
    crop: int = 128  # px, a multiple of 16
    learning_rate: float = 1e-3  # peak, for the network
    linear_rate: float = 0.03  # the linear maps learn this much slower: they start at an optimum
    warmup: int = 200  # steps of linear warm-up
    weight_decay: float = 0.01
    clip: float = 1.0  # gradient norm
    average_decay: float = 0.998  # of the moving average that is evaluated and exported
    seed: int = 0
    bf16: bool = True  # autocast; the scan, statistics and linear maps stay in float32
    l1: float = 1.0
    edge: float = 0.1
    features: float = 0.0  # weight of the feature distance in reconstruction
    kl: float = 1e-4  # β after warm-up
    kl_warmup: int = 1000  # steps over which β rises from 0
    free_nats: float = 0.5  # KL a channel that costs nothing
    gram: float = 1.0  # paint: weights of the distances to the style …
    moments: float = 1.0
    wasserstein: float = 10.0
    content: float = 0.25  # … to the content …
    grid: float = 1.0  # … and of what repeats every 16 pixels

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Raises ValueError that names a field that does not exist."""
        if unknown := sorted(set(data) - {f.name for f in fields(cls)}):
            raise ValueError(f"unknown recipe fields: {', '.join(unknown)}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)
