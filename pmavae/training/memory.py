"""How much memory a phase will need, measured on two small crops."""

from __future__ import annotations

import torch

from pmavae.autoencoder import PMAVAE
from pmavae.restoration.network import Restorer
from pmavae.texture.network import TexturePrior
from pmavae.training.config import TrainConfig
from pmavae.training.dataset import to_device
from pmavae.training.objectives.base import Model
from pmavae.training.objectives.plugin import PluginNetwork
from pmavae.training.objectives.reconstruction import Draws, reconstruction
from pmavae.training.objectives.texture import flow_matching
from pmavae.training.perceptual import PerceptualNetwork
from pmavae.training.phases import Phase
from pmavae.training.plugin import Examples

PROBES = 64, 128  # px of the crops that are measured: what grows between them grows with the pixels
COPIES = 5  # of the weights in float32: themselves, gradient, Adam's two moments, average
PEAK = 1.4  # the peak over the saved activations: 1.28 to 1.39, measured for tiny and small on a CPU


def activation_bytes(
    model: Model,
    config: TrainConfig,
    network: PerceptualNetwork | None,
    precision: torch.dtype | None,
    codec: PMAVAE | None = None,
    examples: Examples | None = None,
) -> float:
    """Bytes that autograd keeps for each pixel of a crop while it is reconstructed, in this autocast."""
    small, large = (_saved_bytes(model, config, network, precision, codec, side, examples) for side in PROBES)
    return (large - small) / (PROBES[1] ** 2 - PROBES[0] ** 2)


def _saved_bytes(
    model: Model,
    config: TrainConfig,
    network: PerceptualNetwork | None,
    precision: torch.dtype | None,
    codec: PMAVAE | None,
    side: int,
    examples: Examples | None,
) -> int:
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = model.device
    draws = Draws(0, rows=1, first=0, count=1, device=device)
    picture = torch.zeros(1, 3, side, side, device=device)
    autocast = torch.autocast(device.type, dtype=precision, enabled=precision is not None)
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if isinstance(model, Restorer):
            levels = torch.zeros(1, 2, device=device)
            model(picture, levels, scale=model.config.scales[-1]).abs().mean()
        elif isinstance(model, PluginNetwork):
            targets = None
            if examples is not None:
                pixels, targets = examples.draw(side, seed=0, step=0, first=0, count=1)
                picture = to_device(pixels, device)
            model.train().outcome(picture, draws, targets)
        elif isinstance(model, TexturePrior):
            assert codec is not None
            flow_matching(model, codec, picture, draws, config.texture)
        else:
            reconstruction(model.train(), picture, draws, config.loss, network, 1.0)
    return sum(seen.values())


def phase_bytes(model: Model, phase: Phase, per_pixel: float, processes: int = 1) -> int:
    """The estimated peak of one process in a phase, in bytes."""
    crops = max(1, phase.batch // phase.accumulate // processes)
    weights = sum(p.numel() for p in model.parameters())
    return int(COPIES * 4 * weights + PEAK * per_pixel * crops * phase.crop**2)
