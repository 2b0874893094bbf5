"""The work of `pmavae compare`: read two files, measure, show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.errors import ImageError
from pmavae.files.tensors import write_atomically
from pmavae.images.comparison import Comparison, compare_pictures
from pmavae.images.pixels import Pixels, eight_bits, sixteen_bits
from pmavae.pretrained.manifest import WeightsIndex
from pmavae_cli.commands.compare.page import page, shrink_to_fit, side_by_side
from pmavae_cli.console import Console
from pmavae_cli.images.metadata import unpack_alpha
from pmavae_cli.images.transparency import fit_alpha
from pmavae_cli.options import RunOptions
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.jobs import OutputError
from pmavae_cli.run.reader import Item, Session

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Compared:
    """Two files as they were compared."""

    names: tuple[str, str]
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]]  # (H, W, 3), on white where one is transparent
    found: Comparison
    alpha: Comparison | None  # of their transparency, where one has some
    grey: bool  # both, so that one channel tells of all three
    resized: bool

    @property
    def equal(self) -> bool:
        """Whether nothing at all differs that can be seen."""
        return math.isinf(self.found.psnr) and (self.alpha is None or math.isinf(self.alpha.psnr))

    def by_channel(self, measure: str) -> dict[str, Any]:
        """The largest difference or the mean shift, by the names of channels."""
        values = dict(zip(COLOURS, getattr(self.found, measure), strict=True))
        if self.grey:
            values = {"grey": values["red"]}
        return values if self.alpha is None else {**values, "alpha": getattr(self.alpha, measure)[0]}


def compare_sources(
    a: Source,
    b: Source,
    options: RunOptions,
    console: Console,
    resize: bool = False,
    index: WeightsIndex | None = None,
) -> Compared:
    """Read and measure two files; raises PMAVAEError where one is bad or their sizes differ.

    The weights that decode latent files have names by the index.
    """
    session = Session.open(options, console, index=index)
    first, second = session.load(a), session.load(b)
    pixels, others = first.as_pixels(), second.as_pixels()
    alpha, other_alpha = _alpha(first), _alpha(second)
    size, other_size = (pixels.shape[1], pixels.shape[0]), (others.shape[1], others.shape[0])
    if size != other_size and not resize:
        raise ImageError(
            f"{a.name} is {size[0]}×{size[1]} px and {b.name} is {other_size[0]}×{other_size[1]} px: "
            "give pictures of one size, or --resize"
        )
    if size != other_size:
        others, other_alpha = (
            _resized(eight_bits(others), size),
            fit_alpha(other_alpha, *size, other_alpha.dtype),
        )
    found_alpha = None
    if first.metadata.get("alpha") or second.metadata.get("alpha"):
        found_alpha = compare_pictures(_three(eight_bits(alpha)), _three(eight_bits(other_alpha)))
        pixels, others = _on_white(pixels, alpha), _on_white(others, other_alpha)
    if pixels.dtype != others.dtype:
        pixels, others = sixteen_bits(pixels), sixteen_bits(others)
    return Compared(
        names=(a.name, b.name),
        pictures=(eight_bits(pixels), eight_bits(others)),
        found=compare_pictures(pixels, others),
        alpha=found_alpha,
        grey=first.metadata.get("mode") == second.metadata.get("mode") == "L",
        resized=size != other_size,
    )


def facts(compared: Compared) -> dict[str, Any]:
    """All that was measured, as JSON has it; an infinite PSNR is None."""
    found = compared.found
    height, width = compared.pictures[0].shape[:2]
    return {
        "a": compared.names[0],
        "b": compared.names[1],
        "width": width,
        "height": height,
        "resized": compared.resized,
        "equal": compared.equal,
        "psnr": None if math.isinf(found.psnr) else round(found.psnr, 4),
        "ssim": round(found.ssim, 6),
        "largest_difference": {key: round(value, 3) for key, value in compared.by_channel("largest").items()},
        "mean_shift": {key: round(value, 4) for key, value in compared.by_channel("shift").items()},
    }


def table(compared: Compared) -> list[list[str]]:
    """The same to read: a heading, then a measure a row."""
    found = compared.found
    largest, shift = compared.by_channel("largest"), compared.by_channel("shift")
    psnr = "∞" if math.isinf(found.psnr) else f"{found.psnr:.2f}"
    blank = [""] * len(largest)
    return [
        ["", "all", *largest],
        ["PSNR (dB)", psnr, *blank],
        ["SSIM", f"{found.ssim:.4f}", *blank],
        [
            "largest difference",
            f"{max(largest.values()):.4g}",
            *(f"{value:.4g}" for value in largest.values()),
        ],
        ["mean shift", f"{sum(found.shift) / 3:+.2f}", *(f"{value:+.2f}" for value in shift.values())],
    ]


def show(compared: Compared, output: Path, gain: float, overwrite: bool, console: Console) -> None:
    """Write the picture or the page; raises OutputError, naming it."""
    a, b, smaller = shrink_to_fit(*compared.pictures)
    if smaller:
        console.note(f"{output}: the pictures are shown at {a.shape[1]}×{a.shape[0]} px")
    if output.suffix.lower() == ".html":
        data = page(a, b, gain, compared.names, table(compared))
    else:
        data = side_by_side(a, b, gain)
    if output.is_file() and not overwrite:
        raise OutputError(f"{output} was made by someone else meanwhile: use --overwrite to replace it")
    write_atomically(output, data, error=OutputError)


def _alpha(loaded: Item) -> Pixels:
    width, height = loaded.size
    alpha = unpack_alpha(loaded.metadata)
    if alpha is None:
        return np.full((height, width), 255, np.uint8)
    return fit_alpha(alpha, width, height, alpha.dtype)  # a latent file may keep it at a lower resolution


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _three(grey: Pixels) -> Pixels:
    return np.repeat(grey[..., None], 3, axis=2)


def _on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    most = np.iinfo(pixels.dtype).max
    weight = alpha.astype(np.float32)[..., None] / np.iinfo(alpha.dtype).max
    blended: Pixels = (pixels * weight + most * (1 - weight)).round().astype(pixels.dtype)
    return blended
