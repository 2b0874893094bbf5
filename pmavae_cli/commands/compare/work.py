"""Two files are read, measured and shown: as a table, as one picture, or as a page with a slider."""

from __future__ import annotations

import html
import io
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.errors import ImageError
from pmavae.files.tensors import write_atomically
from pmavae.images.metrics import Comparison, amplified_difference, compare_pictures
from pmavae.images.pixels import Pixels, eight_bits, sixteen_bits
from pmavae.pretrained.manifest import WeightsIndex
from pmavae_cli.console import Console
from pmavae_cli.images.formats import OutputError
from pmavae_cli.images.metadata import fit_alpha, unpack_alpha
from pmavae_cli.options import RunOptions
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.reader import Item, Session

EightBits = NDArray[np.uint8]  # (H, W, 3)

MAX_PIXELS = 64_000_000  # of what is shown together: it can be read again as a picture
_GAP = 8  # px of white between pictures

# The policy keeps the page to itself: nothing is loaded from anywhere.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: {width}px; padding: 0 1rem;
  color: #222; background: #fff }}
figure {{ margin: 0; position: relative; --at: 50% }}
figure img {{ display: block; width: 100% }}
figure img + img {{ position: absolute; top: 0; left: 0; clip-path: inset(0 0 0 var(--at)) }}
figure::after {{ content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px;
  margin-left: -1px; background: #fff; mix-blend-mode: difference }}
input {{ width: 100%; margin: .5rem 0 }}
.names {{ display: flex; justify-content: space-between; gap: 2rem; overflow-wrap: anywhere }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ padding: .2rem .8rem .2rem 0; text-align: left }}
.difference {{ width: 100% }}
</style>
</head>
<body>
<div class="names"><span>A: {a_name}</span><span>B: {b_name}</span></div>
<figure id="pair">
<img alt="A" src="{a}">
<img alt="B" src="{b}">
</figure>
<input id="slider" type="range" min="0" max="100" value="50" step="0.1"
 aria-label="How much of A is shown">
<table>
{rows}
</table>
<p>Difference, times {gain:g}</p>
<img class="difference" alt="difference" src="{difference}">
<script>
const slider = document.getElementById("slider"), pair = document.getElementById("pair");
slider.addEventListener("input", () => pair.style.setProperty("--at", slider.value + "%"));
</script>
</body>
</html>
"""
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Compared:
    """Two files as they were compared."""

    names: tuple[str, str]
    pictures: tuple[EightBits, EightBits]  # (H, W, 3), on white where one is transparent
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


def shrink_to_fit(a: EightBits, b: EightBits) -> tuple[EightBits, EightBits, bool]:
    """Both pictures at a size at which they can be shown beside their difference; whether that is smaller."""
    height, width = a.shape[:2]
    scale = (MAX_PIXELS / (3 * (width + _GAP) * height)) ** 0.5
    if scale >= 1:
        return a, b, False
    size = max(1, int(width * scale)), max(1, int(height * scale))

    def shrunk(pixels: EightBits) -> EightBits:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))

    return shrunk(a), shrunk(b), True


def side_by_side(a: EightBits, b: EightBits, gain: float) -> bytes:
    """A PNG file: a, b, and their difference times `gain`, from left to right."""
    gap = np.full((a.shape[0], _GAP, 3), 255, np.uint8)
    return _png(np.concatenate((a, gap, b, gap, amplified_difference(a, b, gain)), axis=1))


def page(
    a: EightBits, b: EightBits, gain: float, names: tuple[str, str], table: Sequence[Sequence[str]]
) -> bytes:
    """An HTML file that needs nothing else: a slider between a and b, the measures, the difference."""
    rows = [f"<tr><th>{'<td>'.join(map(html.escape, row))}</tr>" for row in table]
    filled = _PAGE.format(
        title=f"{html.escape(names[0])} – {html.escape(names[1])}",
        width=max(480, a.shape[1]),
        a_name=html.escape(names[0]),
        b_name=html.escape(names[1]),
        a=_embedded(a),
        b=_embedded(b),
        difference=_embedded(amplified_difference(a, b, gain)),
        gain=gain,
        rows="\n".join(rows),
    )
    # A file name may hold bytes that are no text.
    return filled.encode("utf-8", "replace")


def _embedded(pixels: EightBits) -> str:
    return "data:image/png;base64," + b64encode(_png(pixels)).decode("ascii")


def _png(pixels: EightBits) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)  # most of the time goes here
    return stream.getvalue()
