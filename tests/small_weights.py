"""A small weights file of every kind, how it is loaded, and its bytes taken apart and put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from small_config import CONFIG
from small_priors import codec, prior
from small_restorers import network
from torch import nn

from pmavae import PMAVAE
from pmavae.network_configs import FEATURE_NETWORK, FEATURES_TASK, FeatureConfig, NetworkConfig
from pmavae.pretrained.manifest import released_weights
from pmavae.pretrained.network import TaskNetwork
from pmavae.pretrained.weights import save_weights
from pmavae.restoration.network import Restorer
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.texture.network import TexturePrior

FEATURES = FeatureConfig(
    preset=FEATURE_NETWORK,
    task=FEATURES_TASK,
    stem=4,
    kernels=(3, 5),
    strides=(1, 2),
    expansions=(1, 2),
    channels=(4, 6),
    ends=(1, 2),
)
PLUGIN = NetworkConfig(preset="test", task="smooth", settings={"channels": 3})


class Smooth(nn.Module):
    """A plugin's network: with a count that is an integer, and a tensor that is in no file."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.register_buffer("window", torch.ones(5), persistent=False)


def build_smooth(settings: Mapping[str, Any]) -> nn.Module:
    """As a plugin makes it."""
    return Smooth(**settings)


def smooth() -> TaskNetwork:
    torch.manual_seed(0)
    return TaskNetwork.build(PLUGIN, build_smooth, "the test")


def feature_network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FEATURES).eval()


INDEX = released_weights()


@dataclass(frozen=True)
class Kind:
    """What is particular to a kind of weights file."""

    make: Callable[[], Any]
    load: Callable[[Path], Any]
    many: dict[str, Any]  # a configuration of far too many layers
    wide: dict[str, Any]  # one of terabytes, whose values are each allowed
    wrong: dict[str, Any]  # one with a value that is not allowed


KINDS = {
    "autoencoder": Kind(
        lambda: codec(CONFIG),
        lambda path: PMAVAE.from_pretrained(path, INDEX),
        many={"encoder_blocks": [1000] * 4},
        wide={"encoder_channels": [8192] * 4, "decoder_channels": [8192] * 4, "d_state": 8192},
        wrong={"base_channels": 10**9},
    ),
    **{
        task: Kind(
            lambda task=task: network(task),
            lambda path, task=task: Restorer.from_pretrained(path, INDEX, task=task),
            many={"blocks": [1000] * 3},
            wide={"channels": [8192] * 3},
            wrong={"stem_stride": 3},
        )
        for task in ("denoise", "upscale")
    },
    "texture-vary": Kind(
        lambda: prior(codec(CONFIG)),
        lambda path: TexturePrior.from_pretrained(path, INDEX),
        many={"depth": 1000},
        wide={"width": 8192, "style_channels": 8192},
        wrong={"width": 0},
    ),
    "features": Kind(
        feature_network,
        FeatureNetwork.from_pretrained,
        many={"channels": [8] * 10_000, "kernels": [3] * 10_000},
        wide={"channels": [8192, 8192], "expansions": [8192, 8192]},
        wrong={"kernels": [3]},
    ),
    "plugin": Kind(
        smooth,
        lambda path: TaskNetwork.from_pretrained(path, "smooth", build_smooth, INDEX),
        many={"settings": {"channels": [3] * 101}},
        wide={"settings": {"channels": 8192}},
        wrong={"settings": {"channels": {"import": "os"}}},
    ),
}


def write(kind: str, path: Path) -> Path:
    """A sound file of a kind."""
    model = KINDS[kind].make()
    save_weights(path, model.state_dict(), model.config, f"{kind}-test")
    return path


@dataclass
class Parts:
    """A weights file in pieces: changed, it is put together as it stands, without a checksum."""

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]
    header: dict[str, Any]  # the object under the key "pmavae"
    data: bytes

    @classmethod
    def of(cls, file: bytes) -> Parts:
        start = 8 + int.from_bytes(file[:8], "little")
        tensors = json.loads(file[8:start])
        metadata = tensors.pop("__metadata__")
        header = json.loads(metadata.pop("pmavae"))
        return cls(tensors, {}, header, file[start:])

    @property
    def first(self) -> str:
        """The name of the tensor that lies first."""
        return min(self.tensors, key=lambda name: self.tensors[name]["data_offsets"][0])

    @property
    def last(self) -> str:
        return max(self.tensors, key=lambda name: self.tensors[name]["data_offsets"][1])

    def text(self) -> str:
        """The header of the file."""
        return json.dumps(
            {"__metadata__": {**self.metadata, "pmavae": json.dumps(self.header)}, **self.tensors}
        )

    def bytes(self) -> bytes:
        return raw(self.text().encode(), self.data)


def raw(header: bytes, data: bytes = b"") -> bytes:
    """A safetensors file of these."""
    return len(header).to_bytes(8, "little") + header + data
