"""A check that click's ranges of numbers leave out."""

from __future__ import annotations

import math

import click


def a_number(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """NaN is in no range and beyond none, so click lets it pass."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number.")
    return value
