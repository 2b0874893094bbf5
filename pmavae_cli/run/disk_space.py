"""About how much room outputs will take, from the headers of their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.presets import PRESETS
from pmavae_cli.images.formats import LATENTS, READABLE, Format, format_of
from pmavae_cli.options import RunOptions
from pmavae_cli.run.folder_tree import is_file

SAMPLE = 64  # headers that are read at most, as a folder may lie on a slow disk
# What a flat photograph takes. An estimate that is too high would refuse a run that has room.
_BYTES_PER_PIXEL = {"png": 0.75, "tiff": 0.75, "bmp": 1.0, "jpg": 0.25}
_LEAST_BYTES_PER_PIXEL = 0.05


def bytes_needed(outputs: Sequence[tuple[Path, Format]], scale: int, options: RunOptions) -> int:
    """The bytes that outputs, each given by its input and its format, take together.

    scale: how many times as wide and high as its input an output is. Of many outputs a sample counts.
    """
    sample = outputs[:: -(-len(outputs) // SAMPLE) or 1]
    total = sum(
        pixels_of(path, options) * scale**2 * _bytes_per_pixel(form, options) for path, form in sample
    )
    return round(total / max(1, len(sample)) * len(outputs))


def _bytes_per_pixel(form: Format, options: RunOptions) -> float:
    if form is LATENTS:
        return _latent_values(options) * (4 if options.dtype == "float32" else 2)
    return _BYTES_PER_PIXEL.get(form.name, _LEAST_BYTES_PER_PIXEL)


def _latent_values(options: RunOptions) -> float:
    """The numbers that a pixel becomes."""
    config = PRESETS[options.preset]
    return config.base_channels / BASE_STRIDE**2 + config.detail_channels / DETAIL_STRIDE**2


def pixels_of(path: Path, options: RunOptions) -> float:
    """About how many pixels an input has; 0 for what cannot be read, which will have no output."""
    from PIL import Image

    if not is_file(path):
        return 0  # a pipe could be read only once
    try:
        if format_of(path) is LATENTS:
            return path.stat().st_size / (4 * _latent_values(options))
        with Image.open(path, formats=READABLE) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as reason:
        from pmavae_cli.images.large import MAX_PIXELS
        from pmavae_cli.images.reading import pixels_named

        pixels = pixels_named(reason)
        return pixels if pixels <= MAX_PIXELS else 0
    except Exception:  # what a damaged header leads to is told when it is read in earnest
        return 0
