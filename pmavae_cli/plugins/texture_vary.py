"""`pmavae texture-vary`: the same picture with other textures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import MASK, Context, Task, hookimpl
from pmavae_cli.plugins import bounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pmavae import Latents


class TextureVary(Task):
    name = "texture-vary"
    help = "Vary the textures and the brush work of pictures; colours and composition stay."
    weights = "texture-vary"
    params = (
        bounded("--amount", 0, 1, 0.7, help="From none (0) and subtle to all fine texture anew (1)."),
        click.Option(
            ["--count", "variants"],
            type=click.IntRange(1, 999),
            default=1,
            show_default=True,
            metavar="N",
            help="How many variants; each is the same whatever their number.",
        ),
        click.Option(
            ["--region"],
            type=MASK,
            metavar="MASK",
            help="A picture of the input's shape: white varies, black is kept, grey varies less.",
        ),
    )

    def count(self, **options: Any) -> int:
        return int(options["variants"])

    def transform(
        self,
        latents: Latents,
        context: Context,
        amount: float,
        variants: int,
        region: NDArray[np.uint8] | None,
    ) -> list[Latents]:
        from pmavae.texture.sampling import fit_region, vary

        where = None if region is None else fit_region(region, latents.height, latents.width)
        made = []
        for number in range(variants):
            made.append(vary(context.task_model, latents, amount, context.generator, where))
            context.progress(number + 1, variants)
        return made


@hookimpl
def register_tasks() -> list[Task]:
    return [TextureVary()]
