"""Opening a picture file that is too large to be read as a whole, and reading it strip by strip."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from pmavae.config import MIN_SIZE
from pmavae.errors import ImageError
from pmavae.files.latent_file import MAX_SIZE
from pmavae.images.pixels import STRIP, Pixels
from pmavae.images.reading import UNREADABLE
from pmavae_cli.images.icc import to_srgb
from pmavae_cli.images.metadata import carry, extras_of
from pmavae_cli.images.reading import Picture, TooLargeError, damaged, millions, own_profile

if TYPE_CHECKING:
    import pyvips


MAX_PIXELS = 1_000_000_000
# Opened by the class itself, a file is not refused for its size, and nothing but its header is read.
_CLASSES: dict[bytes, type[ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
}


def open_large(place: bytes | Path, name: str, found: TooLargeError) -> Picture:
    """A JPEG, PNG or TIFF file, or its bytes, of more pixels than `read_picture` takes.

    found: what that raised. The result has rows in place of pixels, and no transparency.
    Raises ImageError, in one sentence that starts with the name.
    """
    has = f"{name} has {millions(found.pixels)} million pixels"
    if found.pixels > MAX_PIXELS:
        raise ImageError(f"{has}: make it smaller first, to {millions(MAX_PIXELS)} million at most")
    try:
        with (
            warnings.catch_warnings(),
            io.BytesIO(place) if isinstance(place, bytes) else place.open("rb") as stream,
        ):
            warnings.simplefilter("ignore")
            first_bytes = stream.read(4)
            kind = _CLASSES.get(first_bytes) or _CLASSES.get(first_bytes[:3])
            if kind is None:
                raise ImageError(f"{has}: of its format only smaller ones are read; convert it to TIFF first")
            stream.seek(0)
            with kind(stream) as image:
                return _opened(image, place, name, has)
    except (*UNREADABLE, UnidentifiedImageError) as reason:
        raise damaged(name, reason) from None


def _opened(image: ImageFile, place: bytes | Path, name: str, has: str) -> Picture:
    try:
        import pyvips  # noqa: F401
    except (ImportError, OSError):  # the binding without the library
        raise ImageError(f"{has}: pip install 'pmavae[large]' reads such a file by strips") from None
    width, height = image.size
    if min(width, height) < MIN_SIZE or max(width, height) > MAX_SIZE:
        raise ImageError(
            f"{name} is {width}×{height} px, and both sides must be from {MIN_SIZE} to {MAX_SIZE} px: "
            "cut it first"
        )
    # EXIF data of a PNG file that have not been met yet lie behind the pixels, if they are there at all.
    orientation, extras = extras_of(image, with_exif=image.format != "PNG" or "exif" in image.info)
    if orientation in range(3, 9):
        raise ImageError(f"{has}, and its EXIF orientation turns them: turn the pixels first (vips autorot)")
    rows = Rows(place, name, image.format or "", mirrored=orientation == 2)
    notes: list[str] = []
    with suppress(*UNREADABLE):
        if (frames := getattr(image, "n_frames", 1)) > 1:
            notes.append(f"the first of its {frames} frames is used")
    if rows.more:
        notes.append("so large a picture is read without its transparency")
    if image.info.get("progressive") or image.info.get("interlace"):
        notes.append("it is progressive or interlaced, so all of it is in memory while it is read")
    rows.profile = own_profile(extras.profile, rows.grey, notes)
    carried = carry(rows.dtype, rows.grey, extras._replace(profile=rows.profile))
    return Picture(None, carried, tuple(notes), rows=rows)


LOADERS = {"JPEG": "jpegload", "PNG": "pngload", "TIFF": "tiffload"}
_DEPTHS = {"uchar": np.uint8, "ushort": np.uint16}
_KINDS = frozenset(("b-w", "srgb", "rgb", "grey16", "rgb16"))  # libvips' names of what is light, not ink


class Rows:
    """A picture file as a RowSource of `PMAVAE.encode`: upright colours in sRGB."""

    def __init__(self, place: bytes | Path, name: str, format: str, *, mirrored: bool = False) -> None:
        """The header of a file, or of its bytes; raises ImageError, naming it.

        format: one of LOADERS. mirrored: left is right.
        """
        self.name = name
        self._open = _opener(place, format)
        image = self._damaged(self._open)
        if image.interpretation not in _KINDS or image.format not in _DEPTHS:
            raise ImageError(
                f"{name} has pixels of kind {image.interpretation} ({image.format}), and so large a picture "
                "is read only as greys or RGB: convert it first"
            )
        self.grey = image.bands < 3
        self.more = image.bands not in (1, 3)  # channels, mostly transparency
        self.profile = b""  # that the colours are in; sRGB where it is empty
        self.dtype: np.dtype[Any] = np.dtype(_DEPTHS[image.format])
        self._size = image.width, image.height, image.bands
        self._mirrored = mirrored
        self._source = _Sequence(self._read, image.height)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        width, height, _ = self._size
        return height, width, 3

    def rows(self, first: int, last: int) -> Pixels:
        """See RowSource."""
        return self._source.rows(first, last)

    def _read(self) -> Callable[[int, int], Pixels]:
        """What reads rows in their order, from the first."""
        import pyvips

        image = self._damaged(self._open)
        if (image.width, image.height, image.bands) != self._size:
            raise ImageError(f"{self.name} was changed while it was read: try again")
        region = pyvips.Region.new(image)
        width, _, bands = self._size

        def read(first: int, last: int) -> Pixels:
            data = self._damaged(lambda: region.fetch(0, first, width, last - first))
            found: Pixels = np.frombuffer(data, self.dtype).reshape(last - first, width, bands)
            return self._as_colours(found)

        return read

    def _as_colours(self, found: Pixels) -> Pixels:
        colours = found[..., : 1 if self.grey else 3]
        if self._mirrored:
            colours = colours[:, ::-1]
        if self.profile:
            colours = to_srgb(colours, self.profile)
        return colours.repeat(3, axis=2) if colours.shape[2] == 1 else colours

    def _damaged(self, step: Callable[[], Any]) -> Any:
        """A step with the file, whose errors are those of the file."""
        import pyvips

        try:
            return step()
        except pyvips.Error as reason:
            said = str(reason.detail).strip().splitlines() or ["libvips cannot read it"]
            raise damaged(self.name, said[0].strip()) from None


def _opener(place: bytes | Path, format: str) -> Callable[[], pyvips.Image]:
    """What opens a file, from its first row, with the one loader and never another."""
    logging.getLogger("pyvips").addHandler(logging.NullHandler())  # what it warns of is no use to a user
    import pyvips

    pyvips.cache_set_max(0)  # else a file that is opened again is where its last reading ended
    loader = LOADERS[format] + ("_buffer" if isinstance(place, bytes) else "")
    load: Callable[..., pyvips.Image] = getattr(pyvips.Image, loader)
    source = place if isinstance(place, bytes) else str(place)
    return lambda: load(source, access="sequential", fail_on="error")


class _Sequence:
    """Rows that can only be read in their order, of which those are kept that are asked for again."""

    def __init__(self, start: Callable[[], Callable[[int, int], Pixels]], height: int) -> None:
        """start: begins again at the top, and gives what reads the rows from a first to a last."""
        self._start = start
        self._height = height
        self._reader: Callable[[int, int], Pixels] | None = None
        self._top = 0
        self._kept: Pixels | None = None  # from the row _top on

    def rows(self, first: int, last: int) -> Pixels:
        if not 0 <= first < last <= self._height:
            raise ValueError(f"there are no rows from {first} to {last} of {self._height}")
        if self._reader is None or first < self._top:
            self._reader = self._kept = None  # what it holds is given back before the next begins
            self._reader = self._start()
        kept, self._kept = self._kept, None
        end = 0 if kept is None else self._top + len(kept)
        kept = kept[first - self._top :] if kept is not None and first < end else None
        self._top = first
        if last > end:
            kept = self._extended(kept, max(first, end), first, last)
        self._kept = kept
        assert kept is not None
        return kept[: last - first]

    def _extended(self, kept: Pixels | None, begin: int, first: int, last: int) -> Pixels:
        """What is kept, and the rows from `begin` to `last` after it."""
        assert self._reader is not None
        found: Pixels | None = None
        for top in range(begin, last, STRIP):
            bottom = min(top + STRIP, last)
            part = self._reader(top, bottom)
            if found is None:
                found = np.empty((last - first, *part.shape[1:]), part.dtype)
                if kept is not None:
                    found[: len(kept)] = kept
            found[top - first : bottom - first] = part
        assert found is not None
        return found
