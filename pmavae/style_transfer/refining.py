"""Refining a picture by gradient descent, until its features are those of a style."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.inference.fused import fast_dtype
from pmavae.style_transfer.distances import Wanted, content_distance, style_distances
from pmavae.style_transfer.features import FeatureNetwork

# Weights of the distances to the styles and to the content; docs/style.md tells what else was tried.
STYLE = {"gram": 1.5, "moments": 1.0, "wasserstein": 15.0, "strokes": 6.0}
CONTENT = 0.6
MASSES = 6.0  # of how far light and dark move from where they were …
MASS = 8  # … in squares of so many px: what is a face or a tower from afar
# What is moved at once: squares of so many px, so that broad washes and fine strokes go side by side …
OCTAVES = (1, 2, 4, 8)
# … and how fast their hue goes beside their light: paint has no coloured noise.
CHROMA = (0.1, 0.15, 0.4, 1.0)
RATE = 0.06  # of Adam, on the logit of the pixels; falls to nothing
EDGE = 0.02  # keeps the logit of black and white finite
# Where the network's grids of 2 to 16 px lie on the picture, in turns: in one place only, they would show.
OFFSETS = ((0, 0), (5, 11), (10, 6), (15, 1))
MARGIN = 16  # px of reflection around the picture, or the network's zeros beyond the border paint a frame


def refine(
    start: Tensor,
    content: Tensor,
    styles: Sequence[tuple[Tensor, float]],
    network: FeatureNetwork,
    *,
    steps: int,
    generator: torch.Generator,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Tensor:
    """Move the pixels of `start` towards the texture of the styles, while they still show the content.

    start, content: (1, 3, H, W) in [0, 1]; styles: pictures (1, 3, h, w) of any sizes and their weights,
    which sum to 1. Gatys' method (arXiv 1508.06576) with a network twenty times smaller, patches beside
    the features, and steps in an image pyramid. `on_step` is told the steps done and the loss. The same
    generator gives the same picture.
    """
    with torch.no_grad():
        wanted_content = [_features(network, _framed(content, offset)) for offset in OFFSETS]
        wanted = Wanted.of(
            [
                (picture, _features(network, _framed(picture, OFFSETS[0])), weight)
                for picture, weight in styles
            ]
        )
        masses = _masses(start)
    height, width = start.shape[2:]
    logit = torch.logit(start.clamp(EDGE, 1 - EDGE))
    with torch.enable_grad():
        moved = [
            torch.zeros(1, 3, -(-height // n), -(-width // n), device=start.device, requires_grad=True)
            for n in OCTAVES
        ]
        optimizer = torch.optim.Adam(moved, lr=RATE, betas=(0.9, 0.99))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps) ** 0.5
            optimizer.zero_grad()
            picture = torch.sigmoid(logit + _together(moved, height, width))
            turn = step % len(OFFSETS)
            features = _features(network, _framed(picture, OFFSETS[turn]))
            distances = style_distances(picture, features, wanted, generator)
            loss = (
                torch.stack([STYLE[name] * distance for name, distance in distances.items()]).sum()
                + CONTENT * content_distance(features, wanted_content[turn], network.content_layers)
                + MASSES * (_masses(picture) - masses).abs().mean()
            )
            loss.backward()
            optimizer.step()
            on_step(step + 1, loss.item())
    with torch.no_grad():
        return torch.sigmoid(logit + _together(moved, height, width))


def _features(network: FeatureNetwork, picture: Tensor) -> list[Tensor]:
    fast = fast_dtype(picture.device)
    with torch.autocast(picture.device.type, dtype=fast, enabled=fast is not None):
        return [x.float() for x in network(picture.contiguous(memory_format=torch.channels_last))]


def _masses(picture: Tensor) -> Tensor:
    """Light and dark of squares, (1, 1, H / MASS, W / MASS), with what is left over at the borders."""
    light = picture.mean(1, keepdim=True)
    return F.avg_pool2d(light, MASS, ceil_mode=True, count_include_pad=False)


def _framed(picture: Tensor, offset: tuple[int, int]) -> Tensor:
    """The picture with its own reflection around it, moved by `offset` px; one size for all offsets."""
    top, left = (MARGIN + by for by in offset)
    bottom, right = (MARGIN + 16 - by for by in offset)
    mode = "reflect" if min(picture.shape[2:]) > MARGIN + 16 else "replicate"
    return F.pad(picture, (left, right, top, bottom), mode=mode)


def _together(octaves: Sequence[Tensor], height: int, width: int) -> Tensor:
    """The octaves' light and hues (1, 3, h, w) as what is added to red, green and blue (1, 3, H, W)."""
    parts = []
    for x, chroma in zip(octaves, CHROMA, strict=True):
        light, blue, red = x[:, :1], chroma * x[:, 1:2], chroma * x[:, 2:]
        rgb = torch.cat((light + red, light - 0.5 * red - 0.2 * blue, light + blue), dim=1)
        parts.append(F.interpolate(rgb, size=(height, width), mode="bilinear", align_corners=False))
    return torch.stack(parts).sum(0)
