"""VMamba as the backbone of three networks, and what their weights files say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pmavae.errors import PMAVAEError, WeightsError
from pmavae.files.header import is_label, weights_header
from pmavae.pretrained.network import TaskNetwork
from pmavae.pretrained.resolve import resolve
from pmavae.vmamba import VMAMBA, VMamba, VMambaConfig

VARIANTS = {  # by the preset of a training
    "tiny": VMAMBA["vmamba-tiny"],
    "small": VMAMBA["vmamba-small"],
    "base": VMAMBA["vmamba-base"],
}
_FIELDS = ("generation", "channels", "depths", "ssm_ratio", "d_state", "mlp_ratio")
_MOST = 100  # entries of a list in a weights file


def backbone_settings(config: VMambaConfig) -> dict[str, Any]:
    """A configuration, but for its classes, as a weights file holds it."""
    values = {name: getattr(config, name) for name in _FIELDS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def backbone_config(settings: Mapping[str, Any], classes: int = 1) -> VMambaConfig:
    """What `backbone_settings` gave."""
    values = {name: settings[name] for name in _FIELDS}
    values |= {name: tuple(values[name]) for name in ("channels", "depths")}
    return VMambaConfig(preset="vmamba", classes=classes, **values)


def label_settings(labels: Sequence[str]) -> dict[str, Any]:
    """The names of classes as a weights file holds them: in lists that are not too long."""
    if odd := [label for label in labels if not is_label(label)]:
        raise PMAVAEError(f"{odd[0]!r:.60} is no name for a class: use 1 to 100 printable characters")
    return {
        f"labels_{number}": list(labels[start : start + _MOST])
        for number, start in enumerate(range(0, len(labels), _MOST))
    }


def labels_of(settings: Mapping[str, Any]) -> list[str]:
    """What `label_settings` was given."""
    lists = [name for name in settings if name.startswith("labels_")]
    return [label for number in range(len(lists)) for label in settings[f"labels_{number}"]]


class Backbone(nn.Module):
    """(B, 3, H, W), normalised, to the four stages of a VMamba, which has no classifier any more."""

    def __init__(self, settings: Mapping[str, Any], drop_path: float = 0.0) -> None:
        super().__init__()
        self.network = VMamba(backbone_config(settings), drop_path)
        self.network.classifier = nn.Identity()  # type: ignore[assignment]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four maps."""
        return self.network.config.channels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network.features(x)


def load_labelled(
    name: str, task: str, build: Callable[[Mapping[str, Any]], nn.Module], offline: bool
) -> tuple[nn.Module, list[str]]:
    """The network of weights of a task, and the names of its classes. Raises WeightsError."""
    path = resolve(name, task, offline=offline).path
    found = TaskNetwork.from_pretrained(path, task, build)
    return found.network, labels_of(found.config.settings)


def fill(network: VMamba, path: Path, training: str) -> None:
    """Give a VMamba the values of a trained one, of whatever classes. Raises WeightsError."""
    config = (weights_header(path) or {}).get("config", {})
    if config.get("task") == "classify":
        from pmavae_vision.classifier import build_classifier

        found = TaskNetwork.from_pretrained(path, "classify", build_classifier).network.state_dict()
    else:
        found = VMamba.from_pretrained(path).state_dict()
    mine = network.state_dict()
    head = ("classifier.head.weight", "classifier.head.bias")
    odd = [n for n, t in mine.items() if n not in head and (n not in found or found[n].shape != t.shape)]
    odd += [n for n in found if n not in mine and not n.startswith("classifier.")]
    if odd:
        raise WeightsError(
            f"{path} has a VMamba of another shape than this {training} ({odd[0]}): use another --preset"
        )
    network.load_state_dict({n: found[n] if found[n].shape == t.shape else t for n, t in mine.items()})


def small(config: VMambaConfig, channels: int, depths: tuple[int, int, int, int]) -> VMambaConfig:
    """A variant with other widths, which double from stage to stage, and other depths."""
    widths = (channels, 2 * channels, 4 * channels, 8 * channels)
    return replace(config, preset="vmamba", channels=widths, depths=depths)
