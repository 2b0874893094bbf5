"""The tasks that come with pmavae, a file each; here the options that more than one of them has."""

import math

import click

from pmavae_cli.api import TILE

TILE_OPTION = click.Option(
    ["--tile"], type=TILE, default="auto", show_default=True, help="Side of the tiles, in px of the input."
)


def bounded(name: str, low: float, high: float, default: float | None = None, *, help: str) -> click.Option:
    """An option that takes a number from `low` to `high`; without a default it may be left out, for None."""
    return click.Option(
        [name],
        type=click.FloatRange(low, high),
        default=default,
        show_default=default is not None,
        callback=_a_number,
        help=help,
    )


def _a_number(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """NaN is in no range and beyond none, so click lets it pass."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number.")
    return value


# Without a default, so that a file that cannot follow it is named only where it was asked for.
STYLE_SCALE_OPTION = bounded(
    "--style-scale",
    0.25,
    4,
    help="Size of the brush, whatever that of the style's file: 2 makes it twice as large.  [default: 1]",
)
