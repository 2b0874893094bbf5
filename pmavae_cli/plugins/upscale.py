"""`pmavae upscale`: a picture at two or four times its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import Context, Task, hookimpl
from pmavae_cli.plugins import TILE_OPTION

if TYPE_CHECKING:
    from pmavae.images.pixels import Pixels


MET_NOISE, MET_JPEG = 25.0, 30  # what this network has met: worse pictures are not worth enlarging


class Upscale(Task):
    name = "upscale"
    help = "Enlarge pictures two or four times."
    input_kind = "pixels"
    deep = True
    weights = "upscale"
    params = (
        click.Option(
            ["--scale", "factor"],
            type=click.Choice(["2", "4"]),
            default="2",
            show_default=True,
            help="Sides of the output over those of the input.",
        ),
        click.Option(
            ["--clean/--as-is"],
            default=True,
            show_default=True,
            help="Take the noise and the JPEG artefacts that are found out, or enlarge them too.",
        ),
        TILE_OPTION,
    )

    def scale(self, **options: Any) -> int:
        return int(options["factor"])

    def transform(
        self, pixels: Pixels, context: Context, factor: str, clean: bool, tile: int | None
    ) -> Pixels:
        from pmavae.images.pixels import eight_bits
        from pmavae.restoration.levels import Levels, estimate_levels
        from pmavae.restoration.tiles import restore_pixels

        levels = estimate_levels(eight_bits(pixels), context.tables) if clean else Levels()
        context.detail(f"{levels.describe()}; taken out" if clean else "enlarged as it is")
        levels = levels.within(MET_NOISE, MET_JPEG)
        return restore_pixels(
            context.task_model,
            pixels,
            levels,
            scale=int(factor),
            tile=tile,
            progress=context.progress,
            report=context.log,
        )


@hookimpl
def register_tasks() -> list[Task]:
    return [Upscale()]
