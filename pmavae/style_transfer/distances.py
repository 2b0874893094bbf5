"""How near a picture is to a style, and how much of its content it has kept.

A style may be a mixture of pictures: what is compared are then the statistics of all of them together,
each with its weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

SWD_SCALES = (1, 2, 4, 8)  # patches of 5, 10, 20 and 40 px of the picture
SWD_PATCH = 5
SWD_PROJECTIONS = 16  # of each kind
SWD_POSITIONS = 1024  # patches drawn per picture and scale
STROKE_FLOOR = 0.02  # of a picture's range: what varies less is flat


@dataclass(frozen=True)
class Wanted:
    """What a picture in a style, or in a mixture of styles, would have."""

    grams: list[Tensor]  # a layer each
    moments: list[Tensor]
    pictures: list[tuple[list[Tensor], float]]  # `octaves` of the styles, and their weights

    @classmethod
    def of(cls, styles: Sequence[tuple[Tensor, Sequence[Tensor], float]]) -> Self:
        """Of pictures (B, 3, h, w), each with its feature maps and its weight; the weights sum to 1."""
        layers = range(len(styles[0][1]))
        return cls(
            [torch.stack([weight * gram(maps[i]) for _, maps, weight in styles]).sum(0) for i in layers],
            [torch.stack([weight * moments(maps[i]) for _, maps, weight in styles]).sum(0) for i in layers],
            [(octaves(picture), weight) for picture, _, weight in styles],
        )


def style_distances(
    picture: Tensor, maps: Sequence[Tensor], wanted: Wanted, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The four distances of a picture (B, 3, H, W) with these feature maps to a style, by name."""
    whole, strokes = sliced_wasserstein(picture, wanted.pictures, generator)
    return {
        "gram": gram_distance(maps, wanted.grams),
        "moments": moment_distance(maps, wanted.moments),
        "wasserstein": whole,
        "strokes": strokes,
    }


def _relative(found: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """Squared norm of the difference over that of the reference, averaged over items and layers."""
    layers = [
        ((x - wanted).flatten(1).square().sum(1) / (wanted.flatten(1).square().sum(1) + 1e-8)).mean()
        for x, wanted in zip(found, references, strict=True)
    ]
    return torch.stack(layers).mean()


def gram(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, C): second moments of the channels (arXiv 1508.06576)."""
    flat = x.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def moments(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, 2C): means and mean squares of the channels."""
    return torch.cat((x.mean((2, 3)), x.square().mean((2, 3))), dim=1)


def mean_and_deviation(of: Tensor) -> Tensor:
    """`moments` (B, 2C) to channel means and standard deviations (B, 2C)."""
    mean, square = of.chunk(2, dim=1)
    return torch.cat((mean, (square - mean.square()).clamp(min=1e-6).sqrt()), dim=1)


def gram_distance(a: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Relative squared distance of Gram matrices, averaged over layers; 0 is the same texture.

    a: feature maps; style: the Gram matrices wanted of each.
    """
    return _relative([gram(x) for x in a], style)


def moment_distance(a: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Relative squared distance of channel means and deviations (AdaIN's style loss).

    a: feature maps; style: the `moments` wanted of each.
    """
    return _relative(
        [mean_and_deviation(moments(x)) for x in a], [mean_and_deviation(wanted) for wanted in style]
    )


def content_distance(a: Sequence[Tensor], content: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """Squared distance of instance-normalised deep features: structure without palette; 0..4.

    `layers` are those that are compared: `content_layers` of the network that made the features.
    """
    distances = [
        (F.instance_norm(a[i].float()) - F.instance_norm(content[i].float())).square().mean() for i in layers
    ]
    return torch.stack(distances).mean()


def octaves(picture: Tensor) -> list[Tensor]:
    """(B, 3, H, W) at each of SWD_SCALES; a small picture is not shrunk below one patch."""
    fits = max(1, min(picture.shape[2:]) // SWD_PATCH)
    return [F.avg_pool2d(picture, min(scale, fits)) if scale > 1 else picture for scale in SWD_SCALES]


def sliced_wasserstein(
    a: Tensor, styles: Sequence[tuple[list[Tensor], float]], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """How far the 5×5 patches of a picture are from those of styles, as a whole and in their strokes.

    a: (B, 3, H, W); styles: the `octaves` of pictures (B, 3, h, w) and their weights, which sum to 1.
    Random projections of the patches are sorted and compared (arXiv 2006.07229), at four scales: palette and
    strokes without any network. Patches differ mostly in their mean colour, so that random projections hardly
    see anything else. The second distance is along projections without a mean, and relative to how much
    the style varies along each: fine strokes count as much as coarse ones.
    """
    whole, strokes = [], []
    for number, picture in enumerate(octaves(a)):
        kernels = torch.randn(2 * SWD_PROJECTIONS, 3, SWD_PATCH**2, generator=generator).to(a)
        plain, flat = kernels.chunk(2)
        kernels = torch.cat((plain, flat - flat.mean(2, keepdim=True))).flatten(1)
        kernels = kernels / kernels.norm(dim=1, keepdim=True)
        drawn = _patches(picture, generator)
        of_styles = [(_patches(pictures[number], generator), weight) for pictures, weight in styles]
        wanted = _mixed(of_styles, drawn.shape[2], generator)
        lines, lines_wanted = (
            (kernels @ x).sort(dim=2).values for x in (drawn, wanted)
        )  # (B, projections, N)
        apart = (lines - lines_wanted).abs().mean(2)
        whole.append(apart[:, :SWD_PROJECTIONS].mean())
        spread = lines_wanted[:, SWD_PROJECTIONS:].std(2, correction=0) + STROKE_FLOOR
        strokes.append((apart[:, SWD_PROJECTIONS:] / spread).mean())
    return torch.stack(whole).mean(), torch.stack(strokes).mean()


def _patches(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """About SWD_POSITIONS patches of (B, 3, H, W), as (B, 75, N): every n-th from a random start."""
    step = max(1, round((x.shape[2] * x.shape[3] / SWD_POSITIONS) ** 0.5))
    slack = [max(1, min(step, side - SWD_PATCH + 1)) for side in x.shape[2:]]
    top, left = (int(torch.randint(end, (), generator=generator)) for end in slack)
    return F.unfold(x[:, :, top:, left:], SWD_PATCH, stride=step)


def _mixed(drawn: list[tuple[Tensor, float]], count: int, generator: torch.Generator | None) -> Tensor:
    """`count` patches out of several sets, by their weights."""
    ends = torch.tensor([weight for _, weight in drawn]).cumsum(0).mul(count).round().long().tolist()
    parts = []
    for (patches, _), start, end in zip(drawn, [0, *ends[:-1]], ends, strict=True):
        wanted, there = end - start, patches.shape[2]
        # Each patch as often as it takes, and some of them once more.
        rounds = max(1, -(-wanted // there))
        order = torch.cat([torch.randperm(there, generator=generator) for _ in range(rounds)])
        parts.append(patches[:, :, order[:wanted].to(patches.device)])
    return torch.cat(parts, dim=2)
