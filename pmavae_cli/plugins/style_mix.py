"""`pmavae style-mix`: the content of one picture in the style of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmavae_cli.api import PICTURE, Context, Task, hookimpl
from pmavae_cli.plugins.parameters import bounded

if TYPE_CHECKING:
    from pmavae import Latents


class StyleMix(Task):
    name = "style-mix"
    help = "Repaint pictures in the palette and texture of another."
    input_name = "CONTENT"
    params = (
        click.Argument(["style"], type=PICTURE),
        bounded(
            "--strength", 0, 1, 1.0, help="How far to go from the content's own style (0) to the other's (1)."
        ),
    )

    def transform(self, latents: Latents, context: Context, style: Latents, strength: float) -> Latents:
        from pmavae.style import mix_style

        z_style = mix_style(latents.z_style, [(style.z_style, 1.0)], strength)
        return latents.replace(z_style=z_style)


@hookimpl
def register_tasks() -> list[Task]:
    return [StyleMix()]
