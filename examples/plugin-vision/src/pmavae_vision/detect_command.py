"""`pmavae detect`: the objects in a picture."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pmavae_vision.command_options import (
    Failures,
    choose_device,
    common_options,
    each_picture,
    is_many,
    required_weights,
)


@click.command()
@common_options(outputs=True)
@click.option(
    "--score",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Leave out what is less sure.",
)
@click.option("--max", "most", type=click.IntRange(1, 100), default=100, show_default=True, help="Objects.")
@click.pass_context
def detect(
    ctx: click.Context,
    inputs: tuple[str, ...],
    weights: str | None,
    device: str,
    offline: bool,
    as_json: bool,
    debug: bool,
    output: Path | None,
    overwrite: bool,
    score: float,
    most: int,
) -> None:
    """Find the objects in pictures: boxes, masks and names drawn into a PNG, or as JSON.

    An INPUT is a picture or a folder of pictures. An output that ends in .json has boxes, scores, labels and
    masks as run lengths; --json prints the same, and writes a picture only where -o says so.
    """
    name = required_weights(weights, "detect")
    from pmavae_vision.backbone import load_labelled
    from pmavae_vision.detector import build_detector
    from pmavae_vision.detector import detect as objects_of
    from pmavae_vision.painting import drawn
    from pmavae_vision.pictures import Outputs, output_path, png, read_picture

    network, labels = load_labelled(name, "detect", build_detector, offline)
    network = network.to(choose_device(device))
    failures, outputs = Failures(debug), Outputs(overwrite)
    for path in each_picture(inputs, failures):
        with failures.told():
            place = None
            if output is not None or not as_json:
                place = output_path(path, "detect", output, is_many(inputs), ".png")
                outputs.claim(place, path)
            pixels = read_picture(path)
            objects = objects_of(network, pixels, score, most)
            row = {"input": str(path), "objects": [thing.row(labels) for thing in objects]}
            if place is not None:
                is_text = place.suffix.lower() == ".json"
                data = json.dumps(row).encode() if is_text else png(drawn(pixels, objects, labels))
                outputs.write(place, data)
                row["output"] = str(place)
            click.echo(json.dumps(row) if as_json else str(place))
    ctx.exit(1 if failures.any else 0)
