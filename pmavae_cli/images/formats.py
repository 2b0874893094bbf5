"""The file formats that are read and written, and what each can hold."""

from dataclasses import dataclass
from pathlib import Path

from pmavae.errors import PMAVAEError


@dataclass(frozen=True)
class Format:
    """One format of an output."""

    name: str
    suffixes: tuple[str, ...]  # the first is the usual one
    pillow: str  # Pillow's name; empty for latent files
    alpha: bool = False
    deep: bool = False  # 16 bits a channel
    grey: bool = False
    icc: bool = False
    exif: bool = False
    xmp: bool = False
    max_side: int = 2**20  # pixels

    @property
    def is_image(self) -> bool:
        """Whether a file of this format holds pixels, not latents."""
        return bool(self.pillow)


PNG = Format("png", (".png",), "PNG", alpha=True, deep=True, grey=True, icc=True, exif=True, xmp=True)
LATENTS = Format("safetensors", (".safetensors",), "")
FORMATS = (
    PNG,
    Format("jpg", (".jpg", ".jpeg"), "JPEG", grey=True, icc=True, exif=True, xmp=True, max_side=65_500),
    Format("webp", (".webp",), "WEBP", alpha=True, icc=True, exif=True, xmp=True, max_side=16_383),
    Format(
        "tiff", (".tif", ".tiff"), "TIFF", alpha=True, deep=True, grey=True, icc=True, exif=True, xmp=True
    ),
    Format("avif", (".avif",), "AVIF", alpha=True, icc=True, exif=True, xmp=True, max_side=65_536),
    Format("bmp", (".bmp",), "BMP", grey=True),
    LATENTS,
)

# Every other reader of Pillow stays shut: some run other programs, many are rarely fuzzed.
READABLE = (*(f.pillow for f in FORMATS if f.is_image), "GIF")
READABLE_NAMES = "JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF"

_BY_SUFFIX = {suffix: f for f in FORMATS for suffix in f.suffixes}
FORMAT_NAMES = tuple(suffix[1:] for suffix in _BY_SUFFIX)
SUFFIXES = frozenset(_BY_SUFFIX) | {".gif"}  # 256 colours are enough to read, not to write

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIGNATURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", *_TIFF, b"BM", b"RIFF", b"GIF8")


def format_of(path: Path) -> Format | None:
    """The format that a file's suffix stands for, None for a suffix that is not known."""
    return _BY_SUFFIX.get(path.suffix.lower())


def format_named(name: str) -> Format:
    """The format of `--format NAME`, one of FORMAT_NAMES."""
    return _BY_SUFFIX[f".{name}"]


def starts_like_a_picture(first_bytes: bytes) -> bool:
    """Whether a file that cannot be opened was meant to be a picture, and so is damaged."""
    return first_bytes.startswith(_SIGNATURES) or first_bytes[4:12] == b"ftypavif"


STDOUT = "-"


class OutputError(PMAVAEError):
    """An output that cannot be written."""


@dataclass(frozen=True)
class Output:
    """One file to write."""

    path: Path | None  # None for stdout
    format: Format
    exists: bool = False  # and is to be left as it is

    @property
    def name(self) -> str:
        """What messages and results call it."""
        return str(self.path) if self.path else STDOUT
