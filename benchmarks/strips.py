"""Strips and tiles against the whole picture: how far apart, and whether the borders show.

    python benchmarks/strips.py photo.jpg [photo.jpg ...] [--width 3840]

For every photograph, at its own size or that width: encode and decode in strips (of STRIP MiB) against the
whole picture at once, as decoded pixels, and so the pictures that texture-vary and style-mix --refine 0
decode; style-mix in steps, whose last step goes strip by strip; denoise and upscale in tiles of TILE px
against one. Printed are the PSNR in dB of the one against the other, in 16 bits a channel,
and the border figure: the mean step from row to row across the borders of strips (and from column to column,
of tiles) over that everywhere else, over the same figure of the whole picture. 1.00 means that nothing shows;
the aim is 55 dB and 0.95 to 1.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import pmavae.images.pixels
from pmavae import PMAVAE
from pmavae.config import BASE_STRIDE
from pmavae.images.pixels import ArrayRows, Pixels, sixteen_bits
from pmavae.inference.engine import ENCODER_HALO, HALO, PAINT_HALO, encode_rows, plan_strips, widest
from pmavae.inference.offload import Budget
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer
from pmavae.restoration.tiles import plan_tiles, restore_pixels
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.style_transfer.painting import Refining
from pmavae.style_transfer.repainting import repaint_by_steps
from pmavae.texture.network import TexturePrior
from pmavae.texture.sampling import vary

STRIP, TILE = 64, 256

Row = tuple[str, float, float]  # what, PSNR in dB, border figure


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


def codec(model: PMAVAE, pixels: NDArray[np.uint8]) -> list[Row]:
    """Encoding in strips, and decoding in strips: plain, with other textures, and painted."""
    rows, columns = (-(-side // BASE_STRIDE) for side in pixels.shape[:2])
    model.budget = Budget(2**40)
    latents = model.encode(pixels)
    posterior = encode_rows(model.encoder, ArrayRows(pixels), model.device, Budget(STRIP << 20))
    banded = latents.replace(z_base=posterior.z_base, z_detail=posterior.z_detail, z_style=posterior.z_style)

    def row(name: str, made: Pixels, whole: Pixels, widest: int, halo: int) -> Row:
        fitting = Budget(STRIP << 20).rows(columns * BASE_STRIDE, widest)
        strips = plan_strips(rows, fitting, halo)
        borders = [strip.first * BASE_STRIDE for strip in strips[1:]]
        figure = border_figure(made, whole, borders) if borders else 1.0
        return f"{name} in {len(strips)} strips", psnr(made, whole), figure

    whole, encoded = (model.decode_pixels(z, np.uint16) for z in (latents, banded))
    found = [row("encode", encoded, whole, widest(model.encoder.stages[0]), ENCODER_HALO)]
    painted = latents.z_style.clone()
    painted[:, -1] = 1.0
    changed = {
        "decode": (latents, HALO),
        "style-mix --refine 0": (latents.replace(z_style=painted), PAINT_HALO),
    }
    if model.config.preset == "tiny":
        prior = TexturePrior.from_pretrained("tiny")
        changed["texture-vary"] = vary(prior, latents, 1.0, torch.Generator().manual_seed(0)), HALO
    for name, (z, halo) in changed.items():
        model.budget = Budget(2**40)
        whole = model.decode_pixels(z, np.uint16)
        model.budget = Budget(STRIP << 20)
        found.append(row(name, model.decode_pixels(z, np.uint16), whole, widest(model.decoder.stage2), halo))
    return found


def painter(pixels: NDArray[np.uint8]) -> Row:
    """style-mix in steps, in the picture's own style turned round, its last step in strips and at once."""
    network = FeatureNetwork.from_pretrained()

    def painted(strip_pixels: int) -> Pixels:
        pmavae.images.pixels.STRIP_PIXELS = strip_pixels
        refining = Refining(network, 3, 1.0, torch.Generator().manual_seed(0))
        return repaint_by_steps(sixteen_bits(pixels), [(pixels[::-1, ::-1].copy(), 1.0)], refining)

    usual = pmavae.images.pixels.STRIP_PIXELS
    whole, made = painted(pixels.size), painted(usual)
    rows = max(1, usual // pixels.shape[1])
    borders = range(rows, pixels.shape[0], rows)
    return f"style-mix in {1 + len(borders)} strips", psnr(made, whole), border_figure(made, whole, borders)


def restorer(model: Restorer, pixels: NDArray[np.uint8], levels: Levels) -> Row:
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
    parser.add_argument("--width", type=int, help="px, to which the photographs are enlarged")
    parser.add_argument("--presets", nargs="+", default=["tiny", "small"])
    arguments = parser.parse_args()
    print(f"{'picture':<24}{'':<32}{'PSNR dB':>9}{'border':>9}")
    for path in arguments.photos:
        with Image.open(path) as image:
            picture = image.convert("RGB")
        if arguments.width:
            height = round(arguments.width * picture.height / picture.width)
            picture = picture.resize((arguments.width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(picture)
        rows = []
        for preset in arguments.presets:
            rows += [(f"{preset}: {n}", p, b) for n, p, b in codec(PMAVAE.from_pretrained(preset), pixels)]
        rows.append(painter(pixels))
        rows.append(restorer(Restorer.from_pretrained("tiny", task="denoise"), pixels, Levels(20.0, None)))
        rows.append(restorer(Restorer.from_pretrained("tiny", task="upscale"), pixels, Levels()))
        for name, decibels, figure in rows:
            print(f"{path.name:<24}{name:<32}{decibels:>9.1f}{figure:>9.3f}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
