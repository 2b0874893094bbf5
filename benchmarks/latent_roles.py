"""What each latent carries: pictures with one latent taken from another picture, or silenced.

    python benchmarks/latent_roles.py PICTURE PICTURE... [--weights tiny] [--size 320]
        [--out sheet.png] [--json]

Each picture A is paired with the next one, B, and the last with the first; all are cropped to squares.
The table has the means over the pairs, against A's reconstruction: PSNR of the whole edit; PSNR of the
colours that are left at 1/16 of the size, against A and against B; gradient energy, 1 where there
is as much fine structure as before. The sheet has one row a pair.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from pmavae import PMAVAE, Latents
from pmavae.autoencoder import to_tensor
from pmavae.config import BASE_STRIDE, MIN_SIZE, ModelConfig
from pmavae.errors import ImageError, PMAVAEError
from pmavae.files.tensors import write_atomically
from pmavae.images.metrics import psnr
from pmavae.latents import join_style, mix_style, split_style

CELL, GAP, LABEL = 224, 4, 24  # px on the sheet

Edit = Callable[[Latents, Latents, ModelConfig], Latents]


def without_statistics(a: Latents, b: Latents, config: ModelConfig) -> Latents:
    """Every channel with mean 0 and deviation 1, which is that of an average photograph."""
    base, detail, learned, amount = split_style(a.z_style, config)
    return a.replace(z_style=join_style(torch.zeros_like(base), torch.zeros_like(detail), learned, amount))


def without_learned(a: Latents, b: Latents, config: ModelConfig) -> Latents:
    base, detail, learned, amount = split_style(a.z_style, config)
    return a.replace(z_style=join_style(base, detail, torch.zeros_like(learned), amount))


EDITS: dict[str, Edit] = {
    "z_base of B": lambda a, b, config: a.replace(z_base=b.z_base),
    "z_detail of B": lambda a, b, config: a.replace(z_detail=b.z_detail),
    "z_style of B, painted": lambda a, b, config: a.replace(z_style=mix_style(a.z_style, [(b.z_style, 1.0)])),
    "z_style of B, no paint": lambda a, b, config: a.replace(z_style=b.z_style),
    "z_base 0": lambda a, b, config: a.replace(z_base=torch.zeros_like(a.z_base)),
    "z_detail 0": lambda a, b, config: a.replace(z_detail=torch.zeros_like(a.z_detail)),
    "statistics 0": without_statistics,
    "learned style 0": without_learned,
}


def read(path: Path, side: int) -> Tensor:
    """The middle of a picture, (1, 3, side, side) in [0, 1]."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path} cannot be read as a picture: {error}") from None
    return to_tensor(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS))


def low_pass(picture: Tensor) -> Tensor:
    """What is left of (1, 3, H, W) at the stride of z_base."""
    return F.avg_pool2d(picture, BASE_STRIDE, ceil_mode=True)


def gradient_energy(picture: Tensor) -> float:
    """Mean squared difference of neighbouring pixels."""
    return float(sum(picture.diff(dim=dim).square().mean() for dim in (2, 3)))


def movement(edited: Tensor, reconstruction: Tensor, b: Tensor) -> dict[str, float]:
    """How far an edit moved a picture."""
    return {
        "psnr": float(psnr(edited, reconstruction)),
        "low_pass_psnr": float(psnr(low_pass(edited), low_pass(reconstruction))),
        "low_pass_psnr_to_b": float(psnr(low_pass(edited), low_pass(b))),
        "gradient_energy": gradient_energy(edited) / max(gradient_energy(reconstruction), 1e-12),
    }


def sheet(rows: Sequence[dict[str, Tensor]]) -> Image.Image:
    """One row a pair, one labelled column a picture."""
    pitch = CELL + GAP
    canvas = Image.new("RGB", (pitch * len(rows[0]) - GAP, LABEL + pitch * len(rows) - GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for column, label in enumerate(rows[0]):
        draw.text((column * pitch + CELL // 2, LABEL // 2), label, fill="black", font=font, anchor="mm")
    for line, row in enumerate(rows):
        for column, picture in enumerate(row.values()):
            cell = Image.fromarray((picture[0].permute(1, 2, 0) * 255).round().byte().numpy())
            cell = cell.resize((CELL, CELL), Image.Resampling.LANCZOS)
            canvas.paste(cell, (column * pitch, LABEL + line * pitch))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--weights", default="tiny", help="preset, manifest id, file or folder")
    parser.add_argument("--size", type=int, default=320, help="side of the squares in pixels")
    parser.add_argument("--out", type=Path, help="write the sheet as a PNG")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if len(args.pictures) < 2:
        parser.error("two pictures are needed: the latents of one go into the other")
    if args.size < MIN_SIZE:
        parser.error(f"--size must be at least {MIN_SIZE}")
    try:
        compare(args)
    except PMAVAEError as error:
        raise SystemExit(str(error)) from None


def compare(args: argparse.Namespace) -> None:
    """Make the edits, write the sheet, print the table."""
    model = PMAVAE.from_pretrained(args.weights)
    pictures = [read(path, args.size) for path in args.pictures]
    encoded = [model.encode(picture) for picture in pictures]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in EDITS}
    rows = []
    for i, j in pairwise([*range(len(pictures)), 0]):
        reconstruction = model.decode(encoded[i])
        edited = {
            name: model.decode(edit(encoded[i], encoded[j], model.config)) for name, edit in EDITS.items()
        }
        for name, picture in edited.items():
            found[name].append(movement(picture, reconstruction, pictures[j]))
        rows.append({"A": pictures[i], "B": pictures[j], "reconstruction": reconstruction, **edited})
    if args.out:
        data = io.BytesIO()
        sheet(rows).save(data, format="PNG")
        write_atomically(args.out, data.getvalue(), error=ImageError)

    means = {
        name: {key: statistics.fmean(m[key] for m in moved) for key in moved[0]}
        for name, moved in found.items()
    }
    if args.json:
        print(json.dumps(means))
        return
    print(f"{len(rows)} pairs, weights {model.weights_id}; means")
    print(f"{'':22s}" + "".join(f"{key.replace('_', ' '):>20}" for key in found["z_base 0"][0]))
    for name, mean in means.items():
        print(f"{name:22s}" + "".join(f"{value:20.2f}" for value in mean.values()))


if __name__ == "__main__":
    main()
