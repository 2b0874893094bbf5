"""`pmavae erf`: which pixels a feature of a network depends on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

SHARES = (0.2, 0.3, 0.5, 0.99)  # of the contribution, as in the table of RepLKNet
SIDES = ("above", "below", "left", "right")
PLACES = ("stage2", "stage4", "stage8", "stage16", "stage32", "z_detail", "z_base")
DIRECTIONS = {
    "all": (0, 1, 2, 3),
    "1": (0,),
    "2": (1,),
    "3": (2,),
    "4": (3,),
    "none": (),
}


@click.command()
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="erf.png", show_default=True, metavar="PNG"
)
@click.option(
    "--weights",
    metavar="NAME|PATH",
    help="An autoencoder, a VMamba or a classifier: an id, a file, a folder, or org/name on the Hub. "
    "Default: tiny.",
)
@click.option(
    "--untrained",
    metavar="PRESET",
    help="Initial values instead of weights: tiny, small, base, vmamba-tiny and the other variants.",
)
@click.option(
    "--at",
    type=click.Choice(PLACES),
    help="The map to look from: a stage by its stride, or a latent. Default: the coarsest stage.",
)
@click.option(
    "--directions",
    type=click.Choice(list(DIRECTIONS)),
    default="all",
    show_default=True,
    help="Which scans are on: row by row, column by column, rows backwards, columns backwards.",
)
@click.option(
    "--size",
    type=click.IntRange(32, 4096),
    default=256,
    show_default=True,
    help="Side in px to which pictures are resized, then cut to a square.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many pictures."
)
@click.option(
    "--decades",
    "powers",
    type=click.IntRange(1, 30),
    metavar="N",
    help="Show N powers of ten below the largest value. Default: log10(x + 1), as in the papers.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the initial values.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option("--offline", is_flag=True, help="Ask the network for nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def erf(
    pictures: tuple[str, ...],
    output: Path,
    weights: str | None,
    untrained: str | None,
    at: str | None,
    directions: str,
    size: int,
    limit: int,
    powers: int | None,
    seed: int,
    device: str,
    threads: int | None,
    offline: bool,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Show which pixels a feature in the middle of a map depends on: its effective receptive field.

    PICTURE is a file or a folder. Writes a heat map, and prints the sides of the squares around that feature
    that hold 20, 30, 50 and 99 % of the gradient. Where every pixel counts alike, these are 45, 55, 71 and
    99.5 % of the side of the picture.

    The gradient is that of the sum of the feature's components, its absolute value, a mean over pictures
    (arXiv 1701.04128).
    """
    if weights and untrained:
        raise click.UsageError("Give --weights or --untrained, not both.")
    if output.suffix.lower() != ".png":
        raise click.UsageError(f"{output} is no .png file: a heat map is one.")
    import torch

    from pmavae_vision import erf_model
    from pmavae_vision.command_options import choose_device
    from pmavae_vision.heat_map import heat_map
    from pmavae_vision.pictures import Outputs, expand, png
    from pmavae_vision.receptive_field import (
        compressed,
        decades,
        far_part,
        receptive_field,
        square_of,
        squares,
    )
    from pmavae_vision.scan_directions import keep_directions

    if threads:
        torch.set_num_threads(threads)
    erf_model.check_side(size)
    files = list(expand(pictures))[:limit]
    for path in files:
        Outputs(overwrite).claim(output, path)  # of its own: one output is made of all
    network, name = (
        erf_model.untrained(untrained, seed) if untrained else erf_model.load(weights or "tiny", offline)
    )
    features, at = erf_model.place(network, name, at)
    network.requires_grad_(False).to(where := choose_device(device))
    keep_directions(network, DIRECTIONS[directions])
    field = receptive_field(features, (square_of(path, size).to(where) for path in files))
    shown = heat_map(decades(field, powers) if powers else compressed(field))
    Outputs(overwrite).write(output, png(shown))
    sides, of_log = squares(field, SHARES), squares(compressed(field), SHARES)
    facts: dict[str, Any] = {
        "output": str(output),
        "model": name,
        "at": at,
        "directions": directions,
        "pictures": len(files),
        "size": size,
        "squares": [
            {"contribution": share, "side": side, "side_share": side / size, "log_side_share": log / size}
            for share, side, log in zip(SHARES, sides, of_log, strict=True)
        ],
        "reached": float((field > 0).mean()),
        "far": asdict(far_part(field)),
    }
    click.echo(json.dumps(facts) if as_json else table(facts))


def table(facts: dict[str, Any]) -> str:
    """What was found, as text."""
    scans = f"directions {facts['directions']}"
    rows = [
        ("contribution", "side of its square", "of the side", "of the area", "of the side by log10(x + 1)")
    ]
    for row in facts["squares"]:
        share = row["side_share"]
        cells = f"{row['contribution']:.0%}", f"{row['side']} px", f"{share:.1%}", f"{share**2:.1%}"
        rows.append((*cells, f"{row['log_side_share']:.1%}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    far = facts["far"]
    beyond = f"{far['share']:.1%} is further than a quarter of the side from the middle"
    if far["share"]:
        beyond += ": of that " + ", ".join(f"{far[side]:.1%} {side}" for side in SIDES)
    return "\n".join(
        [
            f"{facts['output']}: {facts['model']}, {facts['at']}, {scans}; "
            f"pictures: {facts['pictures']}, of {facts['size']} px",
            *lines,
            beyond,
            f"{facts['reached']:.1%} of the pixels have any gradient",
        ]
    )
