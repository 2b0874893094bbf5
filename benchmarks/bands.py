"""Bands and tiles against the whole picture: how far apart, and whether the borders show.

    python benchmarks/bands.py photo.jpg [photo.jpg ...]

For every photograph, at its own size: encode and decode in bands (with the memory of a band of BAND MiB)
against the whole picture at once, as decoded pixels; denoise and upscale in tiles of TILE px against one.
Printed are the PSNR in dB of the one against the other, in 16 bits a channel, and the border figure: the mean
step from row to row across the borders of bands (and from column to column, of tiles) over that everywhere
else, over the same figure of the whole picture. 1.00 means that nothing shows; the aim is 55 dB and 0.95 to
1.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pmavae import PMAVAE
from pmavae.bands import ENCODER_HALO, HALO, fitting_rows, plan_bands
from pmavae.config import BASE_STRIDE
from pmavae.encoding_bands import encode_in_bands
from pmavae.pixels import Pixels, sixteen_bits
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer
from pmavae.restoration.tiles import plan_tiles, restore_pixels

BAND, TILE = 64, 256


def psnr(a: Pixels, b: Pixels) -> float:
    """In dB, of 16 bits; at most 150."""
    squares = sum(
        float(np.square(a[row].astype(np.float64) - b[row].astype(np.float64)).sum())
        for row in range(a.shape[0])
    )
    return min(150.0, 10 * np.log10(65535**2 * a.size / max(squares, 1e-9)))


def border_figure(parts: Pixels, whole: Pixels, rows: Iterable[int], columns: Iterable[int] = ()) -> float:
    """The step across borders over that elsewhere, over the same of the whole picture."""

    def step(picture: Pixels) -> float:
        down = np.abs(np.diff(picture[..., 1].astype(np.int32), axis=0)).mean(1)
        across = np.abs(np.diff(picture[..., 1].astype(np.int32), axis=1)).mean(0)
        at = [down[row - 1] for row in rows] + [across[column - 1] for column in columns]
        return float(np.mean(at) / np.mean(np.concatenate((down, across))))

    return step(parts) / step(whole)


def codec(model: PMAVAE, pixels: NDArray[np.uint8]) -> list[tuple[str, float, float]]:
    """Encoding and decoding in bands, and both together."""
    height, width = pixels.shape[:2]
    rows = -(-height // BASE_STRIDE)
    columns = -(-width // BASE_STRIDE) * BASE_STRIDE
    model.working_bytes = 2**40
    latents = model.encode(pixels)
    whole = model.decode_pixels(latents, np.uint16)
    posterior = encode_in_bands(model.encoder, pixels, model.device, BAND << 20)
    banded = latents.replace(z_base=posterior.z_base, z_detail=posterior.z_detail, z_style=posterior.z_style)
    encoded = model.decode_pixels(banded, np.uint16)
    model.working_bytes = BAND << 20
    decoded = model.decode_pixels(latents, np.uint16)
    found = []
    for name, made, widest, halo in (
        ("encode", encoded, model.encoder.widest, ENCODER_HALO),
        ("decode", decoded, model.decoder.widest, HALO),
    ):
        bands = plan_bands(rows, fitting_rows(columns, widest, BAND << 20), halo)
        borders = [band.first * BASE_STRIDE for band in bands[1:]]
        figure = border_figure(made, whole, borders) if borders else 1.0
        found.append((f"{name} in {len(bands)} bands", psnr(made, whole), figure))
    return found


def restorer(model: Restorer, pixels: NDArray[np.uint8], levels: Levels) -> tuple[str, float, float]:
    """A restoration in tiles."""
    deep = sixteen_bits(pixels)
    whole = restore_pixels(model, deep, levels, tile=0)
    made = restore_pixels(model, deep, levels, tile=TILE)
    scale = whole.shape[0] // pixels.shape[0]
    tiles = plan_tiles(*pixels.shape[:2], TILE, model.config.margin, model.config.multiple)
    rows = sorted({scale * tile.rows.start for tile in tiles} - {0})
    columns = sorted({scale * tile.columns.start for tile in tiles} - {0})
    name = f"{model.config.task} in {len(tiles)} tiles"
    return name, psnr(made, whole), border_figure(made, whole, rows, columns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--presets", nargs="+", default=["tiny", "small"])
    arguments = parser.parse_args()
    print(f"{'picture':<24}{'':<32}{'PSNR dB':>9}{'border':>9}")
    for path in arguments.photos:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        rows = []
        for preset in arguments.presets:
            rows += [(f"{preset}: {n}", p, b) for n, p, b in codec(PMAVAE.from_pretrained(preset), pixels)]
        rows.append(restorer(Restorer.from_pretrained("tiny", "denoise"), pixels, Levels(20.0, None)))
        rows.append(restorer(Restorer.from_pretrained("tiny", "upscale"), pixels, Levels()))
        for name, decibels, figure in rows:
            print(f"{path.name:<24}{name:<32}{decibels:>9.1f}{figure:>9.3f}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
