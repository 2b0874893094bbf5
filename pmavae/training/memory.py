"""How much memory a phase will need, measured on one small crop."""

from __future__ import annotations

import torch

from pmavae.autoencoder import PMAVAE
from pmavae.training.config import Phase, TrainConfig
from pmavae.training.objectives import Draws, reconstruction
from pmavae.training.perceptual import PerceptualNetwork

PROBE = 64  # px of the crop that is measured; activations grow with the pixels
COPIES = 5  # of the weights in float32: themselves, gradient, Adam's two moments, average
PEAK = 1.5  # what a backward pass holds beside the saved activations, as a factor; measured


def activation_bytes(model: PMAVAE, config: TrainConfig, network: PerceptualNetwork | None) -> float:
    """Bytes that autograd keeps for each pixel of a crop while it is reconstructed."""
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = model.device
    draws = Draws(0, rows=1, first=0, count=1, device=device)
    picture = torch.zeros(1, 3, PROBE, PROBE, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outcome = reconstruction(model.train(), picture, draws, config.loss, network, 1.0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    total = sum(size for address, size in seen.items() if address not in weights)
    del outcome
    return total / PROBE**2


def phase_bytes(model: PMAVAE, phase: Phase, per_pixel: float, processes: int = 1) -> int:
    """The estimated peak of one process in a phase, in bytes."""
    crops = max(1, phase.batch // phase.accumulate // processes)
    weights = sum(p.numel() for p in model.parameters())
    return int(COPIES * 4 * weights + PEAK * per_pixel * crops * phase.crop**2)
