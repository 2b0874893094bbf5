"""Painting a picture of any size: coarse strokes first, the picture's own finest detail last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.style_transfer.features import FeatureNetwork
from pmavae.style_transfer.palette import recolour
from pmavae.style_transfer.refining import refine
from pmavae.style_transfer.strips import Strips, resized

_Any = TypeVar("_Any")

SIDES = (512, 1024)  # longer sides in px at which strokes are painted, one over the other
ALONE = 1.25  # a picture that is not larger than the first by more than this is painted at its own size
SHARE = 3  # the second has so many times fewer steps, for the strokes are already there
LONGEST = 2 * SIDES[-1]  # px of a style's longer side


def paint(
    content: Strips,
    styles: Sequence[tuple[Tensor, float]],
    network: FeatureNetwork,
    *,
    steps: int,
    generator: torch.Generator,
    strength: float = 1.0,
    style_scale: float = 1.0,
    on_step: Callable[[int, int, float], None] = lambda done, of, loss: None,
) -> Iterator[Tensor]:
    """The content painted in the colours and strokes of the styles, at its own size: its strips in turn.

    styles: pictures (1, 3, h, w) of any sizes and their weights above 0, which are normalised. A style counts
    as if it were as large as the picture, times `style_scale`: strokes have the same size beside what is
    painted, whatever the size of either file. `strength` 0..1 mixes the content in as one more style.
    `on_step` is told the steps done, of all, and the loss. A large picture is never there as a whole.
    """
    longer_side = max(content.height, content.width)
    of, done, painted = steps_of(longer_side, steps), 0, None
    for side, share in _plan(longer_side, steps):
        small = content.resized(side)
        style_side = min(LONGEST, round(side * style_scale))
        scaled = mixture(small, [(resized(x, style_side), weight) for x, weight in styles], strength)
        start = recolour(small, scaled) if painted is None else _enlarged(painted, *small.shape[2:])
        before = done

        def tell(step: int, loss: float, before: int = before) -> None:
            on_step(before + step, of, loss)

        painted = refine(start, small, scaled, network, steps=share, generator=generator, on_step=tell)
        done += share
    assert painted is not None
    if tuple(painted.shape[2:]) == (content.height, content.width):
        yield painted
        return
    # What no stroke is as fine as comes from the picture itself: its light, not its hue.
    tall = [
        F.interpolate(x, (content.height, x.shape[3]), mode="bicubic")
        for x in (painted, content.resized(max(painted.shape[2:])))
    ]
    for rows in content.slices():
        broad, coarse = (_enlarged(x[:, :, rows], rows.stop - rows.start, content.width) for x in tall)
        fine = (content.rows(rows) - coarse).mean(1, keepdim=True)
        yield (broad + fine).clamp_(0, 1)


def mixture(content: _Any, styles: Sequence[tuple[_Any, float]], strength: float) -> list[tuple[_Any, float]]:
    """The styles, and the content as one more of them where the strength is below 1; weights sum to 1."""
    total = sum(weight for _, weight in styles)
    shares = [(picture, strength * weight / total) for picture, weight in styles]
    shares.append((content, 1 - strength))
    return [(picture, share) for picture, share in shares if share]


def steps_of(longer_side: int, steps: int) -> int:
    """How many steps `paint` makes in all for a picture of this size."""
    return sum(share for _, share in _plan(longer_side, steps))


def _plan(longer_side: int, steps: int) -> list[tuple[int, int]]:
    """Longer sides in px to paint at, and the steps at each."""
    if longer_side <= ALONE * SIDES[0]:
        return [(longer_side, steps)]
    return [(SIDES[0], steps), (min(longer_side, SIDES[1]), -(-steps // SHARE))]


def _enlarged(picture: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(picture, (height, width), mode="bicubic", align_corners=False).clamp_(0, 1)
