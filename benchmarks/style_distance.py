"""How near style-mix comes to each style, how much content it keeps, and a sheet to look at.

    python benchmarks/style_distance.py CONTENTS STYLES [--weights tiny] [--strengths 0 0.5 1]
        [--sheet docs/style-mix.jpg] [--json]

Every content is repainted in every style at every strength. Distances are taken by a network that
no weights were trained with (EfficientNet-Lite2) and by patches (sliced Wasserstein): 0 is the
style picture itself, and the first row, strength 0, is the untouched reconstruction.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pmavae import PMAVAE
from pmavae.latents import mix_style
from pmavae.style_transfer.distances import Wanted, content_distance, style_distances
from pmavae.training.evaluation import picture_paths
from pmavae.training.perceptual import EfficientNetLite

DRAWS = 8  # of random projections, averaged
CELL = 224  # px, the longer side of a picture on the contact sheet


def read(path: Path, longer_side: int) -> Tensor:
    """A picture (1, 3, H, W) in [0, 1], shrunk to at most `longer_side`."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((longer_side, longer_side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def pictures(folder: Path, longer_side: int) -> dict[str, Tensor]:
    return {path.stem: read(path, longer_side) for path in picture_paths(folder)}


def contact_sheet(rows: list[list[Tensor | None]]) -> Image.Image:
    """A grid of pictures, each scaled into a square cell."""
    sheet = Image.new("RGB", (CELL * len(rows[0]), CELL * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            if picture is not None:
                cell = Image.fromarray((picture[0].permute(1, 2, 0) * 255).round().byte().numpy())
                cell.thumbnail((CELL - 4, CELL - 4), Image.Resampling.LANCZOS)
                sheet.paste(cell, (x * CELL + (CELL - cell.width) // 2, y * CELL + (CELL - cell.height) // 2))
    return sheet


@torch.no_grad()
def distances(network: EfficientNetLite, painted: Tensor, style: Tensor, content: Tensor) -> dict[str, float]:
    features, of_style, of_content = network(painted), network(style), network(content)
    wanted, generator = Wanted.of([(style, of_style, 1.0)]), torch.Generator().manual_seed(0)
    drawn = [style_distances(painted, features, wanted, generator) for _ in range(DRAWS)]
    means = {name: float(torch.stack([found[name] for found in drawn]).mean()) for name in drawn[0]}
    return means | {"content": float(content_distance(features, of_content, network.content_layers))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("contents", type=Path)
    parser.add_argument("styles", type=Path)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--size", type=int, default=512, help="longer side in pixels")
    parser.add_argument("--sheet", type=Path, help="write the results at the last strength as one picture")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    model = PMAVAE.from_pretrained(args.weights)
    network = EfficientNetLite("efficientnet-lite2")
    contents, styles = pictures(args.contents, args.size), pictures(args.styles, args.size)
    encoded = {name: model.encode(picture) for name, picture in (contents | styles).items()}
    table: dict[float, list[dict[str, float]]] = {strength: [] for strength in args.strengths}
    rows: list[list[Tensor | None]] = [[None, *contents.values()]]
    for style_name, style in styles.items():
        row: list[Tensor | None] = [style]
        for name, content in contents.items():
            for strength in args.strengths:
                z_style = mix_style(encoded[name].z_style, [(encoded[style_name].z_style, 1.0)], strength)
                painted = model.decode(encoded[name].replace(z_style=z_style))
                table[strength].append(distances(network, painted, style, content))
            row.append(painted)
        rows.append(row)
    if args.sheet:
        contact_sheet(rows).save(args.sheet, quality=90, subsampling=0)

    means = {s: {k: float(np.mean([d[k] for d in found])) for k in found[0]} for s, found in table.items()}
    if args.json:
        print(json.dumps(means))
        return
    print(
        f"{len(contents)} contents × {len(styles)} styles, weights {model.weights_id}; means, lower is nearer"
    )
    print("strength" + "".join(f"{name:>13}" for name in means[args.strengths[0]]))
    for strength, mean in means.items():
        print(f"{strength:8.2f}" + "".join(f"{value:13.4f}" for value in mean.values()))


if __name__ == "__main__":
    main()
