"""`python -m pmavae.training.release`: put a run's weights into the manifest, if they are better.

    python -m pmavae.training.release runs/tiny --id tiny-2 --evaluate kodak24/ --data "…"

Shipped weights are a ratchet: a file that reconstructs the evaluation pictures worse than the one
it would replace is refused, and nothing is changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pmavae.autoencoder import PMAVAE
from pmavae.errors import PMAVAEError, WeightsError
from pmavae.tensor_file import write_atomically
from pmavae.training.config import read_config
from pmavae.training.evaluation import reconstruction_scores
from pmavae.weights import save_weights, weights_folder

SCORE = "psnr_kodak24"


def scale_paint(model: PMAVAE, scale: float) -> None:
    """Make paint amount 1 what `scale` was before.

    Every paint branch ends in a linear layer that the amount multiplies, so scaling these layers is
    exactly that. Paint learns to please the network that judges it in training; how much of it another
    network finds nearest to the style is measured afterwards.
    """
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if name.startswith("paint_out.") or (".paint." in name and ".project." in name):
                parameter.mul_(scale)


def release(
    run: Path,
    weights_id: str,
    evaluate: Path,
    data: str,
    folder: Path,
    *,
    recipes: Sequence[Path] = (),
    tolerance: float = 0.0,
    paint_scale: float = 1.0,
) -> dict[str, object]:
    """Write `folder/ID.safetensors` and its manifest row; returns the row.

    Raises WeightsError where the mean PSNR is below that of the same preset's base weights by more
    than `tolerance` dB.
    """
    model = PMAVAE.from_pretrained(run)
    scale_paint(model, paint_scale)
    path, manifest_path = folder / f"{weights_id}.safetensors", folder / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    scores = reconstruction_scores(model, evaluate)
    mean = round(statistics.fmean(score["psnr"] for score in scores.values()), 3)
    similarity = round(statistics.fmean(score["ssim"] for score in scores.values()), 4)
    replaced = [
        row for row in manifest["weights"] if row["preset"] == model.config.preset and row["task"] == "base"
    ]
    if any(row["id"] == weights_id for row in manifest["weights"]):
        raise WeightsError(f"{weights_id} is released already: latent files name it, so choose a new id")
    for row in replaced:
        if mean < row["scores"][SCORE] - tolerance:
            raise WeightsError(
                f"{run} has {mean} dB, {row['id']} has {row['scores'][SCORE]} dB: nothing was released"
            )
    save_weights(path, model.state_dict(), model.config, weights_id, torch.float16)
    entry: dict[str, object] = {
        "id": weights_id,
        "file": path.name,
        "preset": model.config.preset,
        "task": "base",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "repo": None,
        "revision": None,
        "licence": "MIT",
        "data": data,
        "recipe": {
            **{f"part_{i}": read_config(recipe) for i, recipe in enumerate(recipes, 1)},
            "paint_scale": paint_scale,
        },
        "scores": {SCORE: mean, "ssim_kodak24": similarity},
    }
    others = [row for row in manifest["weights"] if row not in replaced]
    text = json.dumps({"version": 1, "weights": [entry, *others]}, indent=2) + "\n"
    write_atomically(manifest_path, text.encode(), error=WeightsError)
    for row in replaced:
        if row["file"] != path.name:
            (folder / row["file"]).unlink(missing_ok=True)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pmavae.training.release", description=__doc__.split("\n")[0]
    )
    parser.add_argument("run", type=Path, help="folder with model.safetensors")
    parser.add_argument("--id", required=True)
    parser.add_argument("--evaluate", type=Path, required=True, help="the 24 Kodak pictures")
    parser.add_argument("--data", required=True, help="what it was trained on, in a sentence")
    parser.add_argument(
        "--recipes",
        type=Path,
        nargs="*",
        default=[],
        help="configurations of the runs, in order (TOML, JSON)",
    )
    parser.add_argument("--tolerance", type=float, default=0.0, help="dB that another gain is worth")
    parser.add_argument("--paint-scale", type=float, default=1.0, help="full paint, of what was trained")
    args = parser.parse_args()
    row = release(
        args.run,
        args.id,
        args.evaluate,
        args.data,
        weights_folder(),
        recipes=args.recipes,
        tolerance=args.tolerance,
        paint_scale=args.paint_scale,
    )
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    try:
        main()
    except PMAVAEError as error:
        sys.exit(f"pmavae: {error}")
