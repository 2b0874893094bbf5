"""`python -m pmavae.training`: make or continue a training run.

    python -m pmavae.training --data photos/ --out runs/tiny --set steps=6000 --set crop=128

The run folder holds the decoded pictures' cache, the recipe, the log (CSV), the checkpoint to
continue from and, after every slice, `model.safetensors` with the averaged weights. Running the
same command again continues; `--until N` ends a slice early.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import torch

from pmavae.autoencoder import PMAVAE
from pmavae.errors import PMAVAEError
from pmavae.presets import PRESETS
from pmavae.training.corpus import STYLE_SHARES, Corpus, build_cache, read_classes
from pmavae.training.evaluation import reconstruction_psnr
from pmavae.training.linear_start import fit_decoder, fit_encoder
from pmavae.training.recipe import Recipe
from pmavae.training.trainer import Trainer

LINEAR_CROPS, LINEAR_CROP_SIZE = 256, 256  # what the linear start is fitted on: 17 megapixels


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pmavae.training", description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS))
    parser.add_argument("--data", nargs="+", type=Path, default=[], help="folders or tars of pictures")
    parser.add_argument("--classes", type=Path, help="CSV with the columns file and class")
    parser.add_argument("--cache", type=Path, help="decoded pictures (default: in the run folder)")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    parser.add_argument("--init-from", type=Path, help="weights to start from, not the linear start")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the recipe")
    parser.add_argument("--until", type=int, help="stop after this step (default: the recipe's steps)")
    parser.add_argument("--every", type=int, default=100, help="steps between log lines")
    parser.add_argument("--evaluate", type=Path, help="folder whose mean PSNR is reported at the end")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


def recipe_from(settings: list[str]) -> Recipe:
    """The recipe with NAME=VALUE changes; values are JSON, or text that needs no quotes."""
    changes = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            sys.exit(f"pmavae: --set {setting} is not NAME=VALUE")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    try:
        return Recipe.from_dict(changes)
    except ValueError as error:
        sys.exit(f"pmavae: {error}")


def linear_start(model: PMAVAE, corpus: Corpus) -> None:
    """Fit the linear maps of a new model on crops of the corpus."""
    pictures = torch.cat(
        [corpus.batch(16, LINEAR_CROP_SIZE, seed=1, step=i) for i in range(LINEAR_CROPS // 16)]
    )
    fit_encoder(model, pictures)
    error = fit_decoder(model, pictures[: LINEAR_CROPS // 2])
    print(f"linear start: mean squared error {error:.5f}", file=sys.stderr)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = recipe_from(args.set)
    (args.out / "recipe.json").write_text(json.dumps(recipe.to_dict(), indent=2))
    cache = args.cache or args.out / "pictures.u8"
    if not cache.exists():
        build_cache(args.data, cache, read_classes(args.classes) if args.classes else None)
    corpus = Corpus(cache)
    checkpoint = args.out / "checkpoint.safetensors"

    torch.manual_seed(recipe.seed)
    model = PMAVAE.from_pretrained(args.init_from) if args.init_from else PMAVAE(PRESETS[args.preset])
    if not args.init_from and not checkpoint.exists():
        linear_start(model, corpus)
    trainer = Trainer(model, corpus, recipe, styles=Corpus(cache, STYLE_SHARES))
    if checkpoint.exists():
        trainer.state.load(checkpoint)

    until = min(args.until or recipe.steps, recipe.steps)
    log = args.out / "log.csv"
    sums: dict[str, float] = {}
    for report in trainer.run(until, checkpoint):
        sums = {name: sums.get(name, 0.0) + value for name, value in report.items()}
        if (report["step"] + 1) % args.every == 0:
            means = {name: value / args.every for name, value in sums.items()} | {"step": report["step"] + 1}
            sums = {}
            with log.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(means))
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(means)
            print("  ".join(f"{k} {v:.4g}" for k, v in means.items()), file=sys.stderr, flush=True)
    trainer.average.save_pretrained(args.out, weights_id=f"{args.preset}-{args.out.name}-{until}")
    if args.evaluate:
        scores = reconstruction_psnr(trainer.average, args.evaluate)
        print(
            f"PSNR {sum(scores.values()) / len(scores):.3f} dB over {len(scores)} pictures of {args.evaluate}"
        )


if __name__ == "__main__":
    try:
        main()
    except PMAVAEError as error:
        sys.exit(f"pmavae: {error}")
