"""`pmavae segment`: what each pixel of a picture is of."""

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
    "--overlay",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Write the colours of the classes over the picture, by so much, instead of their numbers.",
)
@click.option(
    "--side",
    type=click.IntRange(32),
    default=1024,
    show_default=True,
    help="Longer side, in px, of what the network sees of a larger picture.",
)
@click.pass_context
def segment(
    ctx: click.Context,
    inputs: tuple[str, ...],
    weights: str | None,
    device: str,
    offline: bool,
    as_json: bool,
    debug: bool,
    output: Path | None,
    overwrite: bool,
    overlay: float | None,
    side: int,
) -> None:
    """Tell what each pixel of pictures is of: a PNG with a number, and a colour, for each class.

    An INPUT is a picture or a folder of pictures. With --json, also the share of each class.
    """
    name = required_weights(weights, "segment")
    import numpy as np

    from pmavae_vision.backbone import load_labelled
    from pmavae_vision.painting import index_picture, overlaid
    from pmavae_vision.pictures import Outputs, output_path, png, read_picture
    from pmavae_vision.segmenter import build_segmenter
    from pmavae_vision.segmenter import segment as classes_of

    network, labels = load_labelled(name, "segment", build_segmenter, offline)
    network = network.to(choose_device(device))
    failures, outputs = Failures(debug), Outputs(overwrite)
    for path in each_picture(inputs, failures):
        with failures.told():
            place = output_path(path, "segment", output, is_many(inputs), ".png")
            outputs.claim(place, path)
            pixels = read_picture(path)
            classes = classes_of(network, pixels, side)
            image = index_picture(classes) if overlay is None else overlaid(pixels, classes, overlay)
            outputs.write(place, png(image))
            if not as_json:
                click.echo(str(place))
                continue
            counts = np.bincount(classes.ravel(), minlength=len(labels)) / classes.size
            shares = {label: round(float(share), 6) for label, share in zip(labels, counts, strict=True)}
            click.echo(json.dumps({"input": str(path), "output": str(place), "shares": shares}))
    ctx.exit(1 if failures.any else 0)
