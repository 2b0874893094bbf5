"""A picture in other styles, as pixels, with what of it the paint is to leave.

Pictures are (H, W, 3), uint8 or uint16, and a result is of the type of the first. Luma and chroma are those
of JPEG: BT.601, full range. What is kept is put back in strips, so that of a large picture little more than
the result is held at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from pmavae.autoencoder import PMAVAE, to_tensor
from pmavae.images.pixels import LUMA, Pixels, gaussian, luma, strips, to_pixels
from pmavae.latents import Latents, mix_style
from pmavae.style_transfer.painting import Colours, Refining, in_strips, mixture, paint, recolouring

DETAIL_SIGMA = 2.0  # px: what a Gaussian blur of this width takes away is detail
_LUMA = np.array(LUMA, np.float32)


@dataclass(frozen=True)
class Keep:
    """What of the picture the paint is to leave."""

    color: bool = False  # its chroma …
    grey: bool = False  # … of which it has none
    detail: float = 0.0  # 0–1: its fine detail, in the styles' palette

    @property
    def anything(self) -> bool:
        """Whether pixels have to be looked at after painting."""
        return self.color or self.detail > 0


def repaint(
    model: PMAVAE,
    latents: Latents,
    styles: Sequence[tuple[Tensor, float]],
    strength: float = 1.0,
    keep: Keep | None = None,
    plain: Pixels | None = None,
    dtype: DTypeLike = np.uint8,
) -> Pixels:
    """The picture of `latents` (batch 1) in a mixture of styles, at once, by the decoder: (H, W, 3).

    styles and strength are those of `mix_style`. Strength 0 is the picture as it decodes, exactly. `plain` is
    that picture, for a caller who has it. dtype: uint8 or uint16, also of `plain`. Raises ValueError as
    `mix_style` does.
    """
    z_style = mix_style(latents.z_style, styles, strength)

    def as_it_is() -> Pixels:
        return model.decode_pixels(latents, dtype) if plain is None else plain

    if strength == 0:
        return as_it_is()
    painted = model.decode_pixels(latents.replace(z_style=z_style), dtype)

    def palette() -> Pixels:
        unpainted = torch.cat((z_style[:, :-1], torch.zeros_like(z_style[:, -1:])), dim=1)
        return model.decode_pixels(latents.replace(z_style=unpainted), dtype)

    return _kept(painted, keep or Keep(), as_it_is, palette)


def repaint_by_steps(
    plain: Pixels,
    styles: Sequence[tuple[Pixels, float]],
    refining: Refining,
    strength: float = 1.0,
    keep: Keep | None = None,
) -> Pixels:
    """A picture in the strokes of others, step by step until it looks like them: (H, W, 3), of its own type.

    styles: pictures of any sizes and their weights above 0, which are normalised. Strength 0 is the picture
    as it is.
    """
    if strength == 0:
        return plain
    device = refining.network.device
    pictures = [(to_tensor(picture).to(device), weight) for picture, weight in styles]
    painted = paint(plain, pictures, refining, strength)

    def palette() -> Pixels:
        own = Colours.of(in_strips(plain, device))
        parts = [(Colours.of([picture]), weight) for picture, weight in pictures]
        moved = recolouring(own, Colours.mixed(mixture(own, parts, strength)))
        return _joined(map(moved, in_strips(plain, device)), plain)

    return _kept(_joined(painted, plain), keep or Keep(), lambda: plain, palette)


def _joined(strips: Iterable[Tensor], like: Pixels) -> Pixels:
    """Strips (1, 3, h, W) in [0, 1] as pixels of the size and the type of another picture."""
    result, top = np.empty_like(like), 0
    for strip in strips:
        result[top : top + strip.shape[2]] = to_pixels(strip[0], like.dtype)
        top += strip.shape[2]
    return result


def _kept(painted: Pixels, keep: Keep, plain: Callable[[], Pixels], palette: Callable[[], Pixels]) -> Pixels:
    if keep.detail:
        painted = with_detail_of(painted, palette(), keep.detail)
    if not keep.color:
        return painted
    return without_chroma(painted) if keep.grey else with_chroma_of(painted, plain())


def with_chroma_of(picture: Pixels, colours: Pixels) -> Pixels:
    """The luma of `picture` with the chroma of `colours`.

    Where no RGB colour has both, the chroma is brought towards grey just far enough: the luma, which
    carries the strokes, and the hue stay. Raises ValueError for pictures of two sizes.
    """
    _check_sizes(picture, colours)
    result, most = np.empty_like(picture), np.iinfo(picture.dtype).max
    for rows in strips(picture.shape[0]):
        light = picture[rows] @ _LUMA
        # The difference of RGB and luma is a linear function of Cb and Cr alone.
        chroma = colours[rows] - (colours[rows] @ _LUMA)[..., None]
        above = (most - light) / np.maximum(chroma.max(-1), 1e-3)
        below = light / np.maximum(-chroma.min(-1), 1e-3)
        kept = np.minimum(np.minimum(above, below), 1)
        result[rows] = _rounded(light[..., None] + chroma * kept[..., None], picture.dtype)
    return result


def with_detail_of(picture: Pixels, detailed: Pixels, amount: float) -> Pixels:
    """`picture` with the fine luma detail of `detailed` instead of its own, by an amount from 0 to 1.

    Detail is what differs from a Gaussian blur with a deviation of 2 px. Amount 0 gives the picture itself.
    Raises ValueError for pictures of two sizes and for another amount.
    """
    _check_sizes(picture, detailed)
    if not 0 <= amount <= 1:
        raise ValueError(f"an amount of detail of {amount} is outside 0..1")
    if amount == 0:
        return picture
    radius = round(4 * DETAIL_SIGMA)
    kernel = gaussian(DETAIL_SIGMA, radius, torch.float64).float().numpy()
    height = picture.shape[0]
    result = np.empty_like(picture)
    for rows in strips(height):
        top, bottom = max(rows.start - radius, 0), min(rows.stop + radius, height)
        missing = detailed[top:bottom] @ _LUMA - picture[top:bottom] @ _LUMA
        beyond = (radius - (rows.start - top), radius - (bottom - rows.stop))
        blurred = _blurred(np.pad(missing, (beyond, (radius, radius)), mode="edge"), kernel)
        detail = missing[rows.start - top : rows.stop - top] - blurred
        result[rows] = _rounded(picture[rows] + amount * detail[..., None], picture.dtype)
    return result


def without_chroma(picture: Pixels) -> Pixels:
    """The luma of a picture in all three channels."""
    return luma(picture)[..., None].repeat(3, axis=2)


def _check_sizes(picture: Pixels, other: Pixels) -> None:
    if picture.shape != other.shape:
        raise ValueError(f"pictures of two sizes, {picture.shape} and {other.shape}, cannot be combined")


def _rounded(values: NDArray[np.float32], dtype: np.dtype[Any]) -> Pixels:
    return values.round().clip(0, np.iinfo(dtype).max).astype(dtype)


def _blurred(values: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of (H + 2r, W + 2r) the (H, W) that the kernel of 2r + 1 numbers covers whole."""
    height, width = (side - len(kernel) + 1 for side in values.shape)
    down = np.zeros((height, values.shape[1]), np.float32)
    for i, weight in enumerate(kernel):
        down += weight * values[i : i + height]
    across = np.zeros((height, width), np.float32)
    for i, weight in enumerate(kernel):
        across += weight * down[:, i : i + width]
    return across
