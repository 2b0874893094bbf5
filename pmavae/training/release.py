"""`python -m pmavae.training.release`: put a run's weights into the manifest, if they are better.

    python -m pmavae.training.release runs/tiny --id tiny-2 --evaluate kodak24/ --data "…"

Shipped weights are a ratchet: a file that reconstructs or restores the evaluation pictures, or knows their
textures, worse than the one it would replace is refused, and nothing is changed.
"""

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from pmavae.autoencoder import PMAVAE
from pmavae.errors import PMAVAEError, WeightsError
from pmavae.files.tensors import write_atomically
from pmavae.pretrained.manifest import weights_folder
from pmavae.pretrained.network import load_task_model
from pmavae.pretrained.resolve import resolve
from pmavae.pretrained.weights import load_weights, save_weights
from pmavae.training.config import read_config
from pmavae.training.evaluation import SCORE
from pmavae.training.objectives import CLASSES

INVISIBLE = 45.0  # dB from which on nobody sees a difference
VELOCITY = "velocity_kodak24"  # error of a texture prior


def standing(scores: Mapping[str, float | None]) -> float:
    """The one number that releases are compared by: the mean of their PSNRs in dB.

    Of each no more than INVISIBLE counts, or a clean picture, which a network leaves nearly as it is, would
    outweigh every damaged one. Of a texture prior, it is its error below 0.
    """
    if (error := scores.get(VELOCITY)) is not None:
        return -error
    decibels = [value for name, value in scores.items() if name.startswith(SCORE)]
    return round(statistics.fmean(INVISIBLE if v is None else min(v, INVISIBLE) for v in decibels), 3)


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
    codec: str | Path | None = None,
) -> dict[str, object]:
    """Measure a run's weights, write `folder/ID.safetensors` and its manifest row; returns the row.

    `codec` is the autoencoder of a texture prior, by default that of its preset. Raises WeightsError where
    their `standing` is below that of the weights of the same task and preset by more than `tolerance`.
    """
    path, manifest_path = folder / f"{weights_id}.safetensors", folder / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    if any(row["id"] == weights_id for row in manifest["weights"]):
        raise WeightsError(f"{weights_id} is released already: latent files name it, so choose a new id")
    task = getattr(load_weights(resolve(run).path).config, "task", "base")
    if task != "base" and paint_scale != 1:
        raise WeightsError(f"{run} has weights of the task {task}, without paint: leave its scale at 1")
    if task not in CLASSES:
        task = "base"  # which these weights are then refused for
    model = load_task_model(run, task)
    recipe: dict[str, object] = {f"part_{i}": read_config(part) for i, part in enumerate(recipes, 1)}
    if task == "base":
        scale_paint(model, paint_scale)
        recipe["paint_scale"] = paint_scale
    scores = CLASSES[task].measure(model, evaluate, codec)
    replaced = [
        row for row in manifest["weights"] if (row["preset"], row["task"]) == (model.config.preset, task)
    ]
    ours = standing(scores)
    for row in replaced:
        if ours < (theirs := standing(row["scores"])) - tolerance:
            unit = "" if VELOCITY in scores else " dB"
            raise WeightsError(
                f"{run} has {ours}{unit}, {row['id']} has {theirs}{unit}: nothing was released"
            )
    save_weights(path, model.state_dict(), model.config, weights_id, torch.float16)
    entry: dict[str, object] = {
        "id": weights_id,
        "file": path.name,
        "preset": model.config.preset,
        "task": task,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "repo": None,
        "revision": None,
        "licence": "MIT",
        "data": data,
        "recipe": recipe,
        "scores": scores,
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
    add = parser.add_argument
    add("run", type=Path, help="folder with model.safetensors")
    add("--id", required=True, dest="weights_id", metavar="ID")
    add("--evaluate", type=Path, required=True, help="the 24 Kodak pictures")
    add("--data", required=True, help="what it was trained on, in a sentence")
    add(
        "--recipes",
        type=Path,
        nargs="*",
        default=[],
        help="configurations of the runs, in order (TOML, JSON)",
    )
    add("--tolerance", type=float, default=0.0, help="dB that another gain is worth")
    add("--paint-scale", type=float, default=1.0, help="full paint, of what was trained")
    add("--codec", help="autoencoder of a texture prior [default: that of its preset]")
    print(json.dumps(release(folder=weights_folder(), **vars(parser.parse_args())), indent=2))


if __name__ == "__main__":
    try:
        main()
    except PMAVAEError as error:
        sys.exit(f"pmavae: {error}")
