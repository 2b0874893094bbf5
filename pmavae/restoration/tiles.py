"""Restoring pictures of any size, in tiles that leave no trace.

What a network makes of a pixel depends on the input within `config.margin` alone. A tile is run with that
much around it, of which the output is cut off again, so tiles meet as if the picture had been run whole,
and nothing has to be blended.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmavae.images.pixels import Pixels, to_pixels, to_unit
from pmavae.inference.fused import fast_dtype
from pmavae.inference.offload import Budget
from pmavae.network_configs import RestorationConfig
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer

LIVE_FEATURES = 7  # maps of the finest stride that live at the same time, measured in float32


@dataclass(frozen=True)
class Tile:
    """A part of a picture in px, and the part around it that is run for it."""

    rows: slice
    columns: slice
    outer_rows: slice
    outer_columns: slice


def default_tile(config: RestorationConfig, budget: Budget) -> int:
    """The side in px of tiles whose features, with their margin, the budget has room for."""
    per_pixel = LIVE_FEATURES * 4 * config.channels[0] / config.stem_stride**2
    side = int((budget.tile / per_pixel) ** 0.5) - 2 * config.margin
    return max(config.multiple, side // config.multiple * config.multiple)


def plan_tiles(height: int, width: int, side: int, margin: int, multiple: int) -> list[Tile]:
    """Tiles of about equal size, at most `side` px rounded up to `multiple`, from top left to bottom right.

    They begin at multiples of `multiple`, as a coarse position of the whole picture does, and cover it
    once.
    """
    return [
        Tile(rows, columns, _around(rows, height, margin), _around(columns, width, margin))
        for rows in _split(height, side, multiple)
        for columns in _split(width, side, multiple)
    ]


def _split(length: int, side: int, multiple: int) -> Iterator[slice]:
    count = -(-length // max(side, multiple))
    step = -(-length // (count * multiple)) * multiple
    return (slice(begin, min(begin + step, length)) for begin in range(0, length, step))


def _around(part: slice, length: int, margin: int) -> slice:
    return slice(max(0, part.start - margin), min(length, part.stop + margin))


@torch.no_grad()
def restore_whole(
    model: Restorer, picture: Tensor, levels: Levels, *, scale: int | None = None, fidelity: float = 1.0
) -> Tensor:
    """A picture (1, 3, H, W), about in [0, 1], restored as a whole: (1, 3, scale·H, scale·W) in [0, 1].

    fidelity: how much gets past the network's bottleneck, 0 to 1. scale: one of `config.scales`. Raises
    ValueError for a scale that the network has no head for.
    """
    scale = scale or model.config.scales[0]
    if scale not in model.config.scales:
        raise ValueError(f"{model.weights_id} has no scale {scale}, only {model.config.scales}")
    height, width = picture.shape[-2:]
    step = model.config.multiple
    x = picture.to(model.device, torch.float32, memory_format=torch.channels_last)
    x = F.pad(x, (0, -width % step, 0, -height % step), mode="reflect")
    numbers = torch.tensor([levels.numbers()], device=model.device)
    gate = None if fidelity >= 1 else torch.tensor([fidelity], device=model.device)
    fast = fast_dtype(model.device)
    with torch.autocast(model.device.type, dtype=fast, enabled=fast is not None):
        result: Tensor = model(x, numbers, gate, scale)
    return result[..., : scale * height, : scale * width].clamp_(0, 1)


def restore_pixels(
    model: Restorer,
    pixels: Pixels,
    levels: Levels,
    *,
    scale: int | None = None,
    fidelity: float = 1.0,
    tile: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> Pixels:
    """(H, W, 3), uint8 or uint16, to (scale·H, scale·W, 3) of the same type.

    In tiles of `tile` px, 0 for the whole picture at once, None for what `model.budget` has room for. Beyond
    the two pictures it needs memory for one tile. Where a GPU has too little for that, it begins anew with
    tiles of half the side, once, and says so to `report`. `progress` is called with the number of tiles done
    and of all. Raises as `restore_whole` does.
    """
    scale = scale or model.config.scales[0]
    (height, width), longer_side = pixels.shape[:2], max(pixels.shape[:2])
    side = default_tile(model.config, model.budget) if tile is None else tile or longer_side

    def in_tiles() -> Pixels:
        tiles = plan_tiles(height, width, side, model.config.margin, model.config.multiple)
        result = np.empty((scale * height, scale * width, 3), pixels.dtype)
        for done, part in enumerate(tiles, 1):
            outer = to_unit(pixels[part.outer_rows, part.outer_columns])
            restored = restore_whole(model, outer, levels, scale=scale, fidelity=fidelity)
            rows, columns = (slice(scale * s.start, scale * s.stop) for s in (part.rows, part.columns))
            top = rows.start - scale * part.outer_rows.start
            left = columns.start - scale * part.outer_columns.start
            inner = restored[0, :, top:, left:][:, : rows.stop - rows.start, : columns.stop - columns.start]
            result[rows, columns] = to_pixels(inner, pixels.dtype)
            if progress:
                progress(done, len(tiles))
        return result

    try:
        return in_tiles()
    except torch.OutOfMemoryError:
        side = max(model.config.multiple, min(side, longer_side) // 2)
    # Only out here is nothing of the first attempt held by the error.
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    if report:
        report(f"the device has too little memory: begun anew in tiles of {side} px")
    return in_tiles()
