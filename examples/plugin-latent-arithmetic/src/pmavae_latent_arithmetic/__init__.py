"""A task for pmavae: several pictures blended into one, in their latents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import Context, Named, Task, hookimpl

if TYPE_CHECKING:
    from pmavae import Latents

PMAVAE_API = 1


class Numbers(click.ParamType):
    """Numbers separated by commas."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 1,2,1.", param, ctx)
        if not all(map(math.isfinite, numbers)) or not 1e-6 < sum(numbers) < 1e6:
            self.fail(f"the numbers {value} must have a sum above 0, of at most a million.", param, ctx)
        return numbers


class Blend(Task):
    name = "blend"
    help = "Blend pictures of one size into one, in their latents."
    params = (
        click.Option(
            ["--weights", "numbers"],
            type=Numbers(),
            help="A weight for each picture, in their order; one below 0 takes away. Default: all equal.",
        ),
    )

    def many_to_one(self, **options: Any) -> bool:
        return True

    def transform(self, content: list[Named], context: Context, numbers: list[float] | None) -> Latents:
        from pmavae.latents import exchange, join_style, normalise, restore, split_style, statistics

        numbers = numbers or [1.0] * len(content)
        if len(numbers) != len(content):
            raise ValueError(
                f"--weights has {len(numbers)} numbers for {len(content)} pictures: give one for each"
            )
        first = content[0]
        width, height = first.content.width, first.content.height
        sums: list[Any] = [0.0] * 4
        for named, number in zip(content, numbers, strict=True):
            latents = named.content
            if (latents.width, latents.height) != (width, height):
                raise ValueError(
                    f"{named.file} is {latents.width} × {latents.height} px and {first.file} "
                    f"{width} × {height}: make all pictures the same size"
                )
            # Latents are normalised and have exchanged their halves, and z_style has what was taken out
            # (docs/model.md): a mean of them as they are would be of the wrong contrast.
            of_base, of_detail, learned, amount = split_style(latents.z_style, context.model.config)
            base, detail = exchange(latents.z_base, latents.z_detail)
            parts = (restore(base, of_base), restore(detail, of_detail), learned, amount)
            sums = [whole + number / sum(numbers) * part for whole, part in zip(sums, parts, strict=True)]
        base, detail, learned, amount = sums
        of_base, of_detail = statistics(base), statistics(detail)
        z_base, z_detail = exchange(normalise(base, of_base), normalise(detail, of_detail))
        z_style = join_style(of_base, of_detail, learned, amount)
        return first.content.replace(
            z_base=z_base, z_detail=z_detail, z_style=z_style, logvar_base=None, logvar_detail=None
        )


@hookimpl
def register_tasks() -> list[Task]:
    return [Blend()]
