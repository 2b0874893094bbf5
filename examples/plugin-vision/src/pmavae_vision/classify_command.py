"""`pmavae classify`: what is in a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pmavae_vision.command_options import (
    Failures,
    choose_device,
    common_options,
    each_picture,
    required_weights,
)

if TYPE_CHECKING:
    from torch import Tensor


@click.command()
@common_options(outputs=False)
@click.option("--labels", type=click.Path(path_type=Path), help="Names of the classes, one on each line.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes.")
@click.pass_context
def classify(
    ctx: click.Context,
    inputs: tuple[str, ...],
    weights: str | None,
    device: str,
    offline: bool,
    as_json: bool,
    debug: bool,
    labels: Path | None,
    top: int,
) -> None:
    """Tell what is in pictures: the most probable classes.

    An INPUT is a picture or a folder of pictures. A released VMamba, as pmavae weights import makes it, has
    no names for its classes: give them with --labels.
    """
    name = required_weights(weights, "classify")
    from pmavae_vision.classifier import load_classifier, probabilities, read_labels
    from pmavae_vision.pictures import read_picture

    classifier = load_classifier(name, offline)
    classifier.network.to(choose_device(device))
    classes = classifier.network.config.classes
    names = read_labels(labels, classes) if labels else classifier.labels
    names = names or [f"class {number}" for number in range(classes)]
    failures = Failures(debug)
    for path in each_picture(inputs, failures):
        with failures.told():
            found = probabilities(classifier, read_picture(path))
            best = found.argsort(descending=True)[:top].tolist()
            if as_json:
                rows = [
                    {"label": names[i], "class": i, "probability": round(float(found[i]), 6)} for i in best
                ]
                click.echo(json.dumps({"input": str(path), "top": rows}))
            else:
                _print_table(path, names, best, found)
    ctx.exit(1 if failures.any else 0)


def _print_table(path: Path, names: list[str], best: list[int], found: Tensor) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, table = Console(), Table()
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right")
    for number in best:
        table.add_row(Text(names[number]), f"{float(found[number]):.1%}")
    console.print(Text(str(path)), soft_wrap=True)
    console.print(table)
