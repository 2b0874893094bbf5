"""A picture in other styles, as pixels, with what of it the paint is to leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from pmavae.autoencoder import PMAVAE, to_tensor
from pmavae.images.pixels import Pixels, to_pixels
from pmavae.latents import Latents
from pmavae.style import mix_style
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.style_transfer.painting import mixture, paint
from pmavae.style_transfer.palette import Colours, recolouring
from pmavae.style_transfer.recolour import with_chroma_of, with_detail_of, without_chroma
from pmavae.style_transfer.strips import Strips


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


@dataclass(frozen=True)
class Refining:
    """How a picture is painted step by step; see `pmavae.style_transfer.painting.paint`."""

    network: FeatureNetwork
    steps: int
    style_scale: float
    generator: torch.Generator
    on_step: Callable[[int, int, float], None] = lambda done, of, loss: None


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
    device = next(refining.network.parameters()).device
    content = Strips(plain, device)
    pictures = [(to_tensor(picture).to(device), weight) for picture, weight in styles]
    painted = paint(
        content,
        pictures,
        refining.network,
        steps=refining.steps,
        generator=refining.generator,
        strength=strength,
        style_scale=refining.style_scale,
        on_step=refining.on_step,
    )

    def palette() -> Pixels:
        own = Colours.of(content)
        parts = [(Colours.of([picture]), weight) for picture, weight in pictures]
        moved = recolouring(own, Colours.mixed(mixture(own, parts, strength)))
        return _joined(map(moved, content), plain)

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
