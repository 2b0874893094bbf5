"""What comes with a picture beside its colours, and goes with its latents to the output.

The form is that of a latent file's header: a map of strings, binary values in base64. A picture
is given this form as soon as it is read, so that a detour through a latent file changes nothing.

    mode   "L" for a greyscale picture
    depth  "16" for one with 16 bits a channel
    icc    the colour profile
    exif   metadata; the orientation is applied and gone
    xmp    more of it; its orientation is 1
    alpha  transparency, as a greyscale PNG of 8 or 16 bits
"""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections.abc import Mapping

import numpy as np
from PIL import Image

from pmavae.errors import ImageError
from pmavae.images.pixels import Pixels, eight_bits

METADATA = frozenset(("exif", "xmp"))  # what --metadata strip leaves out
HEADER_BUDGET = 900_000  # characters; the header of a latent file ends at 1 MiB


def pack(data: bytes) -> str:
    """Bytes as a string."""
    return b64encode(data).decode("ascii")


def unpack(carried: Mapping[str, str], key: str) -> bytes | None:
    """The bytes under a key, None where there are none; raises ImageError where they are damaged."""
    if key not in carried:
        return None
    try:
        return b64decode(carried[key], validate=True)
    except ValueError:
        raise ImageError(f"the {key} that the latents carry is damaged: encode the picture again") from None


def pack_alpha(alpha: Pixels) -> str:
    """Transparency (H, W), uint8 or uint16, as a string."""
    stream = io.BytesIO()
    Image.fromarray(alpha).save(stream, "PNG")
    return pack(stream.getvalue())


def unpack_alpha(carried: Mapping[str, str]) -> Pixels | None:
    """What is under "alpha", (H, W), None where there is none; raises ImageError where it is damaged."""
    data = unpack(carried, "alpha")
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as alpha:
            return np.asarray(alpha if alpha.mode == "I;16" else alpha.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ImageError("the alpha that the latents carry is damaged: encode the picture again") from None


def fit_header(carried: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What of it fits the header of a latent file, and a note for all that had to give way."""
    kept = dict(carried)
    notes: list[str] = []
    if _size(kept) <= HEADER_BUDGET:
        return kept, notes
    blobs = [("exif", "EXIF metadata"), ("xmp", "XMP metadata"), ("icc", "colour profile")]
    for key, what in sorted(blobs, key=lambda blob: -len(kept.get(blob[0], ""))):
        # What fills the header alone goes first: shrinking the transparency could not save it.
        if _size(kept) - len(kept.get("alpha", "")) > HEADER_BUDGET and key in kept:
            del kept[key]
            notes.append(f"its {what} is too large for a latent file and is left out")
    alpha = unpack_alpha(kept)
    if alpha is not None and _size(kept) > HEADER_BUDGET:
        alpha = eight_bits(alpha)
        kept["alpha"] = pack_alpha(alpha)
    while alpha is not None and _size(kept) > HEADER_BUDGET and min(alpha.shape) > 1:
        height, width = alpha.shape
        image = Image.fromarray(alpha).resize((width // 2, height // 2), Image.Resampling.BOX)
        alpha = np.asarray(image)
        kept["alpha"] = pack_alpha(alpha)
    if kept.get("alpha") != carried.get("alpha"):
        notes.append("its transparency is too large for a latent file and is kept with less precision")
    return kept, notes


def _size(carried: Mapping[str, str]) -> int:
    return sum(map(len, carried.values()))
