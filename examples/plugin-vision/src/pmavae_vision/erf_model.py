"""Whose receptive field is looked at: a stage or a latent of an encoder, or a stage of a VMamba."""

from __future__ import annotations

import torch
from torch import nn

from pmavae import PMAVAE, PRESETS
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.errors import PMAVAEError
from pmavae.files.header import weights_header
from pmavae.network_configs import STRIDES
from pmavae.pretrained.resolve import resolve
from pmavae.vmamba import VMAMBA, VMamba
from pmavae_vision.classifier import load_classifier, normalised
from pmavae_vision.receptive_field import Features

ENCODER_STRIDES = (2, 4, 8, 16)


def load(weights: str, offline: bool) -> tuple[nn.Module, str]:
    """The network of weights, and their name. Raises WeightsError."""
    path = resolve(weights, offline=offline).path
    if (weights_header(path) or {}).get("config", {}).get("task") in ("vmamba", "classify"):
        network = load_classifier(str(path)).network
        return network, str(network.weights_id)
    model = PMAVAE.from_pretrained(weights, offline=offline)
    return model, model.weights_id


def untrained(preset: str, seed: int) -> tuple[nn.Module, str]:
    """The network of a preset with its initial values. Raises PMAVAEError where there is no such preset."""
    if preset not in (*PRESETS, *VMAMBA):
        raise PMAVAEError(f"there is no preset {preset}: use one of {', '.join([*PRESETS, *VMAMBA])}")
    torch.manual_seed(seed)
    network = PMAVAE(PRESETS[preset]) if preset in PRESETS else VMamba(VMAMBA[preset])
    return network.eval(), f"{preset}, untrained"


def place(network: nn.Module, name: str, at: str | None) -> tuple[Features, str]:
    """A map of a network, by default its coarsest, and its name. Raises PMAVAEError where there is none."""
    maps = _maps(network)
    at = at or ("stage16" if isinstance(network, PMAVAE) else "stage32")
    if at not in maps:
        raise PMAVAEError(f"{name} has no {at}: use --at {', '.join(maps)}")
    return maps[at], at


def _maps(network: nn.Module) -> dict[str, Features]:
    if isinstance(network, PMAVAE):
        encoder = network.encoder

        def of_stage(number: int) -> Features:
            return lambda x: nn.Sequential(*encoder.stages[: number + 1])(x - 0.5)

        stages = {f"stage{stride}": of_stage(number) for number, stride in enumerate(ENCODER_STRIDES)}
        return {**stages, "z_detail": lambda x: encoder(x).z_detail, "z_base": lambda x: encoder(x).z_base}
    assert isinstance(network, VMamba)
    vmamba = network

    def of_vmamba(number: int) -> Features:
        return lambda x: vmamba.features(normalised(x))[number]

    return {f"stage{stride}": of_vmamba(number) for number, stride in enumerate(STRIDES)}


def check_side(side: int) -> None:
    """Raise PMAVAEError for a side that not all strides divide."""
    coarsest = max(*STRIDES, BASE_STRIDE, DETAIL_STRIDE)
    if side % coarsest:
        raise PMAVAEError(
            f"--size {side} is no multiple of {coarsest}: use {-(-side // coarsest) * coarsest}"
        )
