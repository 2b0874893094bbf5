"""`pmavae encode`: a picture as its latents, or as its style alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import Context, Task, hookimpl
from pmavae_cli.plugins import STYLE_SCALE_OPTION

if TYPE_CHECKING:
    from pmavae import Latents, Style
    from pmavae_cli.api import OutputKind


class Encode(Task):
    name = "encode"
    help = "Write the latents of a picture to a latent file."
    writes = "latents"
    large = True
    params = (
        click.Option(
            ["--only"],
            type=click.Choice(["style"]),
            help="Write a style file, which pmavae style-mix takes as STYLE.",
        ),
        STYLE_SCALE_OPTION,
    )

    def side(self, **options: Any) -> int | None:
        if not options["only"]:
            return None
        from pmavae.images.pixels import STYLE_SIDE

        scale = options["style_scale"]
        return round(STYLE_SIDE * (1.0 if scale is None else scale))

    def output_kind(self, **options: Any) -> OutputKind:
        if options["style_scale"] is not None and not options["only"]:
            raise click.UsageError("--style-scale is for --only style: give both, or neither.")
        return "style" if options["only"] else "latents"

    def transform(
        self, latents: Latents, context: Context, only: str | None, style_scale: float | None
    ) -> Latents | Style:
        if not only:
            return latents
        from pmavae import Style

        return Style(latents.z_style, latents.width, latents.height)


@hookimpl
def register_tasks() -> list[Task]:
    return [Encode()]
