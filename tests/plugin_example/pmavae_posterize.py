"""A task for pmavae: latents in a few steps, like a screen print."""

import click

from pmavae_cli.api import Task, hookimpl


class Posterize(Task):
    name = "posterize"
    help = "Reduce a picture to few levels, in its latents."
    params = (click.Option(["--step"], type=float, default=0.5, show_default=True, help="Size of a level."),)

    def transform(self, latents, context, step):
        context.log(f"rounding to multiples of {step}")
        return latents.replace(z_base=(latents.z_base / step).round() * step)


@hookimpl
def register_tasks():
    return [Posterize()]
