"""A task for pmavae: latents in a few steps, like a screen print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmavae_cli.api import Context, Task, hookimpl

if TYPE_CHECKING:
    from pmavae import Latents

PMAVAE_API = 1


class Posterize(Task):
    name = "posterize"
    help = "Reduce a picture to few levels, in its latents."
    params = (click.Option(["--step"], type=click.FloatRange(0.01, 10), default=0.5, help="Of a level."),)

    def transform(self, content: Latents, context: Context, step: float) -> Latents:
        context.log(f"rounding to multiples of {step}")
        return content.replace(z_base=(content.z_base / step).round() * step)


@hookimpl
def register_tasks() -> list[Task]:
    return [Posterize()]
