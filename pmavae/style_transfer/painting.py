"""Painting a picture of any size: colours first, then coarse strokes, its own finest detail last.

Strokes are laid on by gradient descent, until the picture's features are those of the styles.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.images.pixels import Pixels, fitted, strips, to_unit
from pmavae.inference.fused import fast_dtype
from pmavae.style_transfer.distances import Wanted, content_distance, style_distances
from pmavae.style_transfer.features import FeatureNetwork

_Any = TypeVar("_Any")

SIDES = (512, 1024)  # longer sides in px at which strokes are painted, one over the other
ALONE = 1.25  # a picture that is not larger than the first by more than this is painted at its own size
SHARE = 3  # the second has so many times fewer steps, for the strokes are already there
LONGEST = 2 * SIDES[-1]  # px of a style's longer side
FLOOR = 1e-4  # variance of a colour axis that does not vary


def in_strips(pixels: Pixels, device: torch.device) -> Iterator[Tensor]:
    """The strips of a picture (H, W, 3), uint8 or uint16, from the top: (1, 3, h, W) in [0, 1]."""
    height, width = pixels.shape[:2]
    return (to_unit(pixels[rows], device) for rows in strips(height, width))


def resized_in_strips(pixels: Pixels, longer_side: int, device: torch.device) -> Tensor:
    """What `resized` gives of the whole: rows become narrow one strip after the other, then few."""
    height, width = fitted(pixels.shape[0], pixels.shape[1], longer_side)
    narrow = [_shrunk(x, x.shape[2], width) for x in in_strips(pixels, device)]
    return _shrunk(torch.cat(narrow, 2), height, width).clamp_(0, 1)


def resized(picture: Tensor, longer_side: int) -> Tensor:
    """(1, 3, H, W) in [0, 1] with a longer side of so many px, and a shorter one of 16 at least."""
    return _shrunk(picture, *fitted(picture.shape[2], picture.shape[3], longer_side)).clamp(0, 1)


def _shrunk(picture: Tensor, height: int, width: int) -> Tensor:
    if tuple(picture.shape[2:]) == (height, width):
        return picture
    return F.interpolate(picture, (height, width), mode="bicubic", antialias=True, align_corners=False)


@dataclass(frozen=True)
class Colours:
    """First and second moments of the colours of a picture, or of a mixture of pictures, in float64."""

    mean: Tensor  # (3,)
    squares: Tensor  # (3, 3)

    @classmethod
    def of(cls, strips: Iterable[Tensor]) -> Self:
        """Of a picture in strips of rows, (1, 3, h, W) each."""
        count, total, squares = 0, torch.zeros(3), torch.zeros(3, 3)
        for strip in strips:
            x = strip[0].flatten(1).double()
            count, total, squares = count + x.shape[1], total.to(x) + x.sum(1), squares.to(x) + x @ x.T
        return cls(total / count, squares / count)

    @classmethod
    def mixed(cls, parts: Sequence[tuple[Self, float]]) -> Self:
        """By weights that sum to 1."""
        return cls(
            torch.stack([weight * part.mean for part, weight in parts]).sum(0),
            torch.stack([weight * part.squares for part, weight in parts]).sum(0),
        )

    def covariance(self) -> Tensor:
        """(3, 3), of colours that all vary a little."""
        eye = torch.eye(3, dtype=torch.float64, device=self.mean.device)
        return self.squares - self.mean[:, None] * self.mean + FLOOR * eye


def recolour(picture: Tensor, styles: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The picture (1, 3, H, W) with the mean and covariance of the colours of the styles, in [0, 1].

    styles: pictures (1, 3, h, w) and their weights, which sum to 1.
    """
    wanted = Colours.mixed([(Colours.of([style]), weight) for style, weight in styles])
    return recolouring(Colours.of([picture]), wanted)(picture)


def recolouring(own: Colours, wanted: Colours) -> Callable[[Tensor], Tensor]:
    """What gives (1, 3, h, W) of a picture with its own colours those that are wanted, in [0, 1].

    The linear map between two normal distributions that moves colours least (Pitié & Kokaram, 2007).
    """
    root = _root(own.covariance())
    inverse = torch.linalg.inv(root)
    matrix = (inverse @ _root(root @ wanted.covariance() @ root) @ inverse).float()
    before, after = (mean.float()[:, None, None] for mean in (own.mean, wanted.mean))

    def moved(x: Tensor) -> Tensor:
        return (torch.einsum("ij,bjhw->bihw", matrix, x - before) + after).clamp(0, 1)

    return moved


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T


@dataclass(frozen=True)
class Refining:
    """How a picture is painted step by step."""

    network: FeatureNetwork
    steps: int
    style_scale: float  # of the styles' strokes beside what is painted
    generator: torch.Generator  # the same one gives the same picture
    # Called with the steps done, of all, and the loss.
    on_step: Callable[[int, int, float], None] = lambda done, of, loss: None


def paint(
    content: Pixels, styles: Sequence[tuple[Tensor, float]], refining: Refining, strength: float = 1.0
) -> Iterator[Tensor]:
    """The content (H, W, 3) in the colours and strokes of the styles, at its own size: its strips in turn.

    styles: pictures (1, 3, h, w) of any sizes and their weights above 0, which are normalised. A style counts
    as if it were as large as the picture, times `style_scale`: strokes have the same size beside what is
    painted, whatever the size of either file. `strength` 0..1 mixes the content in as one more style. A
    large picture is never there as a whole.
    """
    (height, width), longer_side = content.shape[:2], max(content.shape[:2])
    device = refining.network.device
    plan = plan_sides(longer_side, refining.steps)
    of, done, painted = sum(share for _, share in plan), 0, None
    for side, share in plan:
        small = resized_in_strips(content, side, device)
        style_side = min(LONGEST, round(side * refining.style_scale))
        scaled = mixture(small, [(resized(x, style_side), weight) for x, weight in styles], strength)
        start = recolour(small, scaled) if painted is None else _enlarged(painted, *small.shape[2:])

        def report(step: int, loss: float, before: int = done) -> None:
            refining.on_step(before + step, of, loss)

        painted = refine(
            start,
            small,
            scaled,
            refining.network,
            steps=share,
            generator=refining.generator,
            on_step=report,
        )
        done += share
    assert painted is not None
    if tuple(painted.shape[2:]) == (height, width):
        yield painted
        return
    # What no stroke is as fine as comes from the picture itself: its light, not its hue.
    tall = [
        F.interpolate(x, (height, x.shape[3]), mode="bicubic")
        for x in (painted, resized_in_strips(content, max(painted.shape[2:]), device))
    ]
    for rows, own in zip(strips(height, width), in_strips(content, device), strict=True):
        broad, coarse = (_enlarged(x[:, :, rows], rows.stop - rows.start, width) for x in tall)
        fine = (own - coarse).mean(1, keepdim=True)
        yield (broad + fine).clamp_(0, 1)


def mixture(content: _Any, styles: Sequence[tuple[_Any, float]], strength: float) -> list[tuple[_Any, float]]:
    """The styles, and the content as one more of them where the strength is below 1; weights sum to 1."""
    total = sum(weight for _, weight in styles)
    shares = [(picture, strength * weight / total) for picture, weight in styles]
    shares.append((content, 1 - strength))
    return [(picture, share) for picture, share in shares if share]


def plan_sides(longer_side: int, steps: int) -> list[tuple[int, int]]:
    """Longer sides in px to paint a picture of this size at, and the steps at each."""
    if longer_side <= ALONE * SIDES[0]:
        return [(longer_side, steps)]
    return [(SIDES[0], steps), (min(longer_side, SIDES[1]), -(-steps // SHARE))]


def _enlarged(picture: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(picture, (height, width), mode="bicubic", align_corners=False).clamp_(0, 1)


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
