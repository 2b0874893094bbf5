"""What a step is fed with: crops, and what goes with them by the objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmavae.restoration.config import RestorationConfig
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import Corpus
from pmavae.training.degradation import Damaged, crop_side, damage, scale_of
from pmavae.training.phases import Phase
from pmavae.training.plugin import Examples


@dataclass(frozen=True)
class Drawn:
    """The crops of a micro-batch."""

    pictures: NDArray[np.uint8]  # (B, S, S, 3)
    styles: NDArray[np.uint8] | None = None  # (B, 2S, 2S, 3) to repaint them in
    damaged: Damaged | None = None  # what to restore
    targets: Any = None  # of the examples of a plugin


def draw(
    config: TrainConfig,
    phase: Phase,
    corpus: Corpus | Examples,
    styles: Corpus | Examples,
    network: RestorationConfig | None,
    *,
    step: int,
    first: int,
    count: int,
) -> Drawn:
    """Rows first to first + count - 1 of a step; `network` is what restores, where that is trained."""
    seed = config.seed
    if isinstance(corpus, Examples) or isinstance(styles, Examples):
        assert isinstance(corpus, Examples)
        pixels, targets = corpus.draw(phase.crop, seed=seed, step=step, first=first, count=count)
        return Drawn(pixels, targets=targets)
    if network is not None:
        scale = scale_of(network, seed, step)
        side = crop_side(phase.crop, scale)
        # Crops of clear sky teach to leave nothing of the noise in it.
        clean = corpus.crops(count, side, seed=seed, step=step, first=first, flat=True)
        return Drawn(clean, damaged=damage(clean, scale, config.damage, seed=seed, step=step, first=first))
    pictures = corpus.crops(count, phase.crop, seed=seed, step=step, first=first)
    if phase.objective != "paint":
        return Drawn(pictures)
    return Drawn(pictures, styles.crops(count, 2 * phase.crop, seed=seed + 1, step=step, first=first))
