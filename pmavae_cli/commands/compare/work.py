"""Two files are read, measured and shown: as a table, as one picture, or as a page with a slider."""

import html
import io
import math
from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
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
    a: Source, b: Source, options: RunOptions, console: Console, resize: bool, index: WeightsIndex
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
        others = _resized(eight_bits(others), size, Image.Resampling.LANCZOS)
        other_alpha = fit_alpha(other_alpha, *size, other_alpha.dtype)
    found_alpha = None
    if first.metadata.get("alpha") or second.metadata.get("alpha"):
        planes = (np.repeat(eight_bits(each)[..., None], 3, axis=2) for each in (alpha, other_alpha))
        found_alpha = compare_pictures(*planes)
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
    """Write the picture, with A, B and their difference, or the page; raises OutputError, naming it."""
    a, b = compared.pictures
    height, width = a.shape[:2]
    scale = (MAX_PIXELS / (3 * (width + _GAP) * height)) ** 0.5
    if scale < 1:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        a, b = (_resized(pixels, size, Image.Resampling.BOX) for pixels in (a, b))
        console.note(f"{output}: the pictures are shown at {size[0]}×{size[1]} px")
    difference = amplified_difference(a, b, gain)
    if output.suffix.lower() == ".html":
        data = _page(a, b, difference, gain, compared)
    else:
        gap = np.full((a.shape[0], _GAP, 3), 255, np.uint8)
        data = _png(np.concatenate((a, gap, b, gap, difference), axis=1))
    if output.is_file() and not overwrite:
        raise OutputError(f"{output} was made by someone else meanwhile: use --overwrite to replace it")
    write_atomically(output, data, error=OutputError)


def _alpha(loaded: Item) -> Pixels:
    width, height = loaded.size
    alpha = unpack_alpha(loaded.metadata)
    if alpha is None:
        return np.full((height, width), 255, np.uint8)
    return fit_alpha(alpha, width, height, alpha.dtype)  # a latent file may keep it at a lower resolution


def _resized(pixels: Pixels, size: tuple[int, int], kind: Image.Resampling) -> EightBits:
    return np.asarray(Image.fromarray(pixels).resize(size, kind))


def _on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    most = np.iinfo(pixels.dtype).max
    weight = alpha.astype(np.float32)[..., None] / np.iinfo(alpha.dtype).max
    blended: Pixels = (pixels * weight + most * (1 - weight)).round().astype(pixels.dtype)
    return blended


def _page(a: EightBits, b: EightBits, difference: EightBits, gain: float, compared: Compared) -> bytes:
    """An HTML file, which by its policy loads nothing: a slider between a and b, measures, the difference."""
    names = [html.escape(name) for name in compared.names]
    rows = [f"<tr><th>{'<td>'.join(map(html.escape, row))}</tr>" for row in table(compared)]
    template = files("pmavae_cli.commands.compare") / "page.html.template"
    filled = Template(template.read_text("utf-8")).substitute(
        title=" – ".join(names),
        width=max(480, a.shape[1]),
        a_name=names[0],
        b_name=names[1],
        a=_embedded(a),
        b=_embedded(b),
        difference=_embedded(difference),
        gain=f"{gain:g}",
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
