"""`pmavae denoise`: noise and JPEG artefacts out of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pmavae_cli.api import Context, Task, hookimpl
from pmavae_cli.plugins import TILE_OPTION, bounded

if TYPE_CHECKING:
    from pmavae.images.pixels import Pixels

UNSEEN_QUALITY = 50  # of JPEG, where --mode jpeg says that there was one and nothing tells how bad


class Denoise(Task):
    name = "denoise"
    help = "Take noise and JPEG artefacts out of pictures."
    input_kind = "pixels"
    deep = True
    weights = "denoise"
    params = (
        click.Option(
            ["--mode"],
            type=click.Choice(["auto", "noise", "jpeg"]),
            default="auto",
            show_default=True,
            help="What to look for: both, or one of them alone.",
        ),
        bounded("--strength", 0, 2, 1.0, help="Times the damage that is found: 0 leaves a picture as it is."),
        bounded(
            "--fidelity", 0, 1, 1.0, help="How much fine structure passes the bottleneck; less is smoother."
        ),
        bounded("--sigma", 0, 100, help="Standard deviation of the noise, of 255, instead of what is found."),
        click.Option(
            ["--jpeg-quality"],
            type=click.IntRange(1, 100),
            metavar="N",
            help="Quality of the JPEG file it was, instead of what is found.",
        ),
        TILE_OPTION,
    )

    def transform(
        self,
        pixels: Pixels,
        context: Context,
        mode: str,
        strength: float,
        fidelity: float,
        sigma: float | None,
        jpeg_quality: int | None,
        tile: int | None,
    ) -> Pixels:
        from pmavae.images.pixels import eight_bits
        from pmavae.restoration.levels import Levels, estimate_levels
        from pmavae.restoration.tiles import restore_pixels

        found = Levels()
        if sigma is None or jpeg_quality is None:
            found = estimate_levels(eight_bits(pixels), context.tables)
        noise = found.noise if mode != "jpeg" else 0.0
        jpeg = found.jpeg if mode != "noise" else None
        if mode == "jpeg" and jpeg is None:
            jpeg = UNSEEN_QUALITY
        levels = Levels(noise if sigma is None else sigma, jpeg if jpeg_quality is None else jpeg_quality)
        used = levels.times(strength).within()
        context.detail(f"{levels.describe()}; taken out at strength {strength:g}")
        if used.none and fidelity == 1:
            return pixels
        return restore_pixels(
            context.task_model,
            pixels,
            used,
            fidelity=fidelity,
            tile=tile,
            progress=context.progress,
            report=context.log,
        )


@hookimpl
def register_tasks() -> list[Task]:
    return [Denoise()]
