"""What texture-vary keeps and changes, and whether it looks real, beside noise on the means.

    python benchmarks/texture_vary.py PICTURES [--weights tiny] [--amounts 0.25 0.5 0.75 1] [--variants 3]
        [--sheet docs/texture-vary.jpg] [--json]

For every picture and amount: PSNR of the low frequencies against the original (to be 28 dB or more),
correlation of the high ones (to be below 0.7 at amount 1), PSNR between two variants, and realism: the
Fréchet distance of the texture features of a network that no weights were trained with (EfficientNet-Lite2)
to those of the original's own patches, as a share of the reconstruction's (to be 1.15 or less). Means over
the pictures, for the prior and for two kinds of noise: Gaussian noise on the means of z_detail that changes
it by the same energy, and the prior's own noise on the same surfaces at the same strengths, left as it is.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pmavae import PMAVAE, Latents
from pmavae.errors import PMAVAEError
from pmavae.images.metrics import psnr
from pmavae.images.pixels import to_pixels, to_unit
from pmavae.texture.coefficients import surface_share, take_apart
from pmavae.texture.network import TexturePrior
from pmavae.texture.sampling import noised, vary
from pmavae.training.evaluation import picture_paths, read_rgb
from pmavae.training.objectives.texture import high_frequency_correlation, low_frequency_psnr
from pmavae.training.perceptual import EfficientNetLite

TEXTURE_MAPS = 4  # at strides 2, 2, 4 and 8; what is deeper knows objects
CELL, GAP = 240, 4  # px of the sheet

Method = Callable[[Latents, float, torch.Generator], Latents]


def methods(prior: TexturePrior) -> dict[str, Method]:
    """By name; each makes one variant."""

    def with_prior(latents: Latents, amount: float, random: torch.Generator) -> Latents:
        return vary(prior, latents, amount, random)

    def with_pattern_noise(latents: Latents, amount: float, random: torch.Generator) -> Latents:
        texture = take_apart(latents.z_base, latents.z_detail)
        noise = torch.randn(texture.pattern.shape, generator=random)
        noisy = replace(texture, pattern=noised(texture, noise, amount)).join()
        where = F.interpolate(surface_share(texture), scale_factor=2.0, mode="nearest")
        return latents.replace(z_detail=torch.lerp(latents.z_detail, noisy, where))

    def with_noise(latents: Latents, amount: float, random: torch.Generator) -> Latents:
        change = (with_prior(latents, amount, random).z_detail - latents.z_detail).square().mean().sqrt()
        noise = torch.randn(latents.z_detail.shape, generator=random)
        return latents.replace(z_detail=latents.z_detail + change * noise)

    return {
        "prior": with_prior,
        "noise on the means": with_noise,
        "noise, kept strengths": with_pattern_noise,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path, help="a folder")
    parser.add_argument("--weights", default="tiny", help="of the prior: preset, manifest id, file or folder")
    parser.add_argument("--codec", default="tiny", help="weights of the autoencoder")
    parser.add_argument("--amounts", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--variants", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write crops at 100 % as one picture")
    parser.add_argument(
        "--crops", nargs="*", default=[], metavar="STEM,X,Y", help="of the sheet: corners in pixels"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        compare(args)
    except PMAVAEError as error:
        raise SystemExit(str(error)) from None


def compare(args: argparse.Namespace) -> None:
    """Make the variants, print the table, write the sheet."""
    codec, prior = PMAVAE.from_pretrained(args.codec), TexturePrior.from_pretrained(args.weights)
    prior.check_codec(codec)
    pictures = {path.stem: to_unit(read_rgb(path)) for path in picture_paths(args.pictures)}
    if args.sheet:
        corners = [crop.split(",") for crop in args.crops] or [[stem, "0", "0"] for stem in pictures]
        sheet(prior, codec, pictures, corners, args.seed).save(args.sheet, quality=72, subsampling=0)
    network = EfficientNetLite("efficientnet-lite2")
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for picture in pictures.values():
        latents = codec.encode(picture)
        reference = statistics_of(network, picture)
        ground = frechet_distance(statistics_of(network, codec.decode(latents)), reference)
        for name, method in methods(prior).items():
            for amount in args.amounts:
                random = torch.Generator().manual_seed(args.seed)
                variants = [codec.decode(method(latents, amount, random)) for _ in range(args.variants)]
                rows = found.setdefault((name, amount), [])
                rows.append(measure(network, picture, variants, reference, ground))

    means = {
        key: {k: statistics.fmean(row[k] for row in rows) for k in rows[0]} for key, rows in found.items()
    }
    if args.json:
        print(json.dumps([{"method": name, "amount": a} | row for (name, a), row in means.items()]))
        return
    print(f"{len(pictures)} pictures, weights {prior.weights_id}; means, of {args.variants} variants each")
    print(f"{'':22s}  amount" + "".join(f"{name:>18}" for name in next(iter(means.values()))))
    for (name, amount), row in means.items():
        print(f"{name:22s}{amount:8.2f}" + "".join(f"{value:18.3f}" for value in row.values()))


@torch.no_grad()
def feature_statistics(maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Mean (C,) and covariance (C, C) over the positions of each feature map (1, C, h, w)."""
    flat = [x[0].flatten(1).double() for x in maps]
    return [(x.mean(1), torch.cov(x)) for x in flat]


def frechet_distance(a: Sequence[tuple[Tensor, Tensor]], reference: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Fréchet distance of feature statistics (arXiv 1706.08500), over the reference's variance; mean of maps.

    Patches are compared as a crowd, not place by place: another part of the same wall is at 0, whatever its
    bricks.
    """
    distances = []
    for (mean_a, cov_a), (mean_b, cov_b) in zip(a, reference, strict=True):
        values, vectors = torch.linalg.eigh(cov_a)
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        crossed = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
        distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * crossed
        distances.append(float(distance / cov_b.trace()))
    return statistics.fmean(distances)


def statistics_of(network: EfficientNetLite, picture: Tensor) -> list[tuple[Tensor, Tensor]]:
    with torch.no_grad():
        return feature_statistics(network(picture)[:TEXTURE_MAPS])


def measure(
    network: EfficientNetLite,
    picture: Tensor,
    variants: list[Tensor],
    reference: list[tuple[Tensor, Tensor]],
    ground: float,
) -> dict[str, float]:
    """Means over the variants of one picture; `ground` is the distance of its reconstruction."""
    mean = statistics.fmean
    return {
        "low PSNR": mean(low_frequency_psnr(x, picture) for x in variants),
        "high correlation": mean(high_frequency_correlation(x, picture) for x in variants),
        "between two": mean(float(psnr(a, b)) for a, b in combinations(variants, 2)),
        "realism": mean(frechet_distance(statistics_of(network, x), reference) for x in variants) / ground,
    }


def sheet(
    prior: TexturePrior, codec: PMAVAE, pictures: dict[str, Tensor], corners: list[list[str]], seed: int
) -> Image.Image:
    """A row a crop, at 100 %: the reconstruction, then the amounts 0.3, 0.65 and 1."""
    amounts = (0.0, 0.3, 0.65, 1.0)
    pitch = CELL + GAP
    canvas = Image.new("RGB", (pitch * len(amounts) - GAP, pitch * len(corners) - GAP), "white")
    for row, (stem, left, top) in enumerate(corners):
        latents = codec.encode(pictures[stem])
        for column, amount in enumerate(amounts):
            random = torch.Generator().manual_seed(seed)
            picture = Image.fromarray(to_pixels(codec.decode(vary(prior, latents, amount, random))[0]))
            x, y = int(left), int(top)
            canvas.paste(picture.crop((x, y, x + CELL, y + CELL)), (column * pitch, row * pitch))
    return canvas


if __name__ == "__main__":
    main()
