"""Two pictures and their difference to look at: as one picture, or as a page with a slider."""

from __future__ import annotations

import html
import io
from base64 import b64encode
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pmavae.images.comparison import amplified_difference

Pixels = NDArray[np.uint8]  # (H, W, 3)

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


def shrink_to_fit(a: Pixels, b: Pixels) -> tuple[Pixels, Pixels, bool]:
    """Both pictures at a size at which they can be shown beside their difference; whether that is smaller."""
    height, width = a.shape[:2]
    scale = (MAX_PIXELS / (3 * (width + _GAP) * height)) ** 0.5
    if scale >= 1:
        return a, b, False
    size = max(1, int(width * scale)), max(1, int(height * scale))

    def shrunk(pixels: Pixels) -> Pixels:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))

    return shrunk(a), shrunk(b), True


def side_by_side(a: Pixels, b: Pixels, gain: float) -> bytes:
    """A PNG file: a, b, and their difference times `gain`, from left to right."""
    gap = np.full((a.shape[0], _GAP, 3), 255, np.uint8)
    return _png(np.concatenate((a, gap, b, gap, amplified_difference(a, b, gain)), axis=1))


def page(a: Pixels, b: Pixels, gain: float, names: tuple[str, str], table: Sequence[Sequence[str]]) -> bytes:
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


def _embedded(pixels: Pixels) -> str:
    return "data:image/png;base64," + b64encode(_png(pixels)).decode("ascii")


def _png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)  # most of the time goes here
    return stream.getvalue()
