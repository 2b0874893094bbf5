"""`pmavae style-mix`: the content of one picture in the style of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import STYLE, Context, Named, Progress, Task, Weighted, hookimpl
from pmavae_cli.plugins import STYLE_SCALE_OPTION, bounded

if TYPE_CHECKING:
    from pmavae import Latents
    from pmavae.images.pixels import Pixels
    from pmavae.style_transfer.repainting import Keep

STEPS = 30  # of --refine where nothing is said; see docs/style.md for what fewer and more achieve


class StyleMix(Task):
    name = "style-mix"
    help = "Repaint pictures in the palette and texture of others."
    input_name = "CONTENT"
    input_kind = "either"
    deep = True
    params = (
        click.Argument(["style"], type=STYLE),
        click.Option(
            ["--style", "more"],
            type=STYLE,
            multiple=True,
            metavar="PATH[:WEIGHT]",
            help="One more style, or a folder of them that share the weight; may be given several times. "
            "Weights count relative to each other; STYLE may have one as well: a.jpg:2. Without, it is 1.",
        ),
        bounded(
            "--strength", 0, 1, 1.0, help="How far to go from the content's own style (0) to the others' (1)."
        ),
        STYLE_SCALE_OPTION,
        click.Option(["--preserve-color"], is_flag=True, help="Keep the colours of the content."),
        bounded(
            "--preserve-detail", 0, 1, 0.0, help="How much fine detail of the content to keep in the paint."
        ),
        click.Option(
            ["--refine"],
            type=click.IntRange(0, 1000),
            metavar="N",
            help="Steps in which the paint is laid on: more come nearer to the style and take longer. 0 "
            f"paints roughly, at once.  [default: {STEPS}]",
        ),
        click.Option(
            ["--grid"],
            is_flag=True,
            help="All contents in every style by itself, on one labelled sheet: style-mix.png unless -o "
            "names it. Weights do not count.",
        ),
    )

    def __init__(self) -> None:
        self.has_reported = False

    def side(self, **options: Any) -> int | None:
        from pmavae.images.pixels import CELL_SIDE

        return CELL_SIDE if options["grid"] else None

    def uses_pictures(self, **options: Any) -> bool:
        return options["refine"] != 0

    def many_to_one(self, **options: Any) -> bool:
        return bool(options["grid"])

    def transform(
        self,
        content: Latents | Pixels | list[Named],
        context: Context,
        style: tuple[Weighted, ...],
        more: tuple[Weighted, ...],
        strength: float,
        style_scale: float | None,
        preserve_color: bool,
        preserve_detail: float,
        refine: int | None,
        grid: bool,
    ) -> Latents | Pixels:
        from pmavae.latents import mix_style
        from pmavae.style_transfer.repainting import Keep, repaint

        styles = (*style, *more)
        keep = Keep(preserve_color, context.grey, preserve_detail)
        scale = 1.0 if style_scale is None else style_scale
        # On a sheet every style stands by itself: one without its picture is no matter of the others.
        mixtures = [(one,) for one in styles] if isinstance(content, list) else [styles]
        brushes = [Brush(context, mixture, strength, refine, scale) for mixture in mixtures]
        rough = next((brush.rough for brush in brushes if brush.rough), None)
        if rough and not self.has_reported:
            self.has_reported = True
            context.log(
                f"{rough} is a style without its picture, so it is painted roughly, at once: give the "
                "picture or its latents for strokes"
            )
        if isinstance(content, list):
            return _sheet(content, brushes, keep, context)
        if brushes[0].steps:
            plain = context.pixels
            if plain is None:
                plain = context.model.decode_pixels(context.latents, f"uint{context.depth}")
            return brushes[0].paint(plain, keep, context.progress)
        latents = context.latents
        mixture = [(weighted.style.z_style, weighted.weight) for weighted in styles]
        # Pixels only where they are asked for: latents lose nothing on their way to the next task.
        if strength > 0 and keep.anything:
            return repaint(context.model, latents, mixture, strength, keep, dtype=f"uint{context.depth}")
        return latents.replace(z_style=mix_style(latents.z_style, mixture, strength))


class Brush:
    """How a mixture of styles is painted: step by step where all of them are there as pictures."""

    def __init__(
        self, context: Context, styles: tuple[Weighted, ...], strength: float, steps: int | None, scale: float
    ) -> None:
        self.context, self.styles, self.strength, self.scale = context, styles, strength, scale
        self.steps = (STEPS if steps is None else steps) if strength > 0 else 0
        self.rough: str | None = None  # the style for which it is at once, unasked
        alone = [weighted.name for weighted in styles if weighted.picture is None]
        if alone and self.steps:
            if steps is not None:
                raise ValueError(
                    f"--refine needs pictures, and {alone[0]} is a style by itself: give the picture or its "
                    "latents, or --refine 0"
                )
            self.steps, self.rough = 0, alone[0]

    def paint(self, plain: Pixels, keep: Keep, progress: Progress) -> Pixels:
        """A picture in these styles, by `steps`."""
        import torch

        from pmavae.style_transfer.painting import Refining
        from pmavae.style_transfer.repainting import repaint_by_steps

        pictures = [
            (weighted.picture, weighted.weight) for weighted in self.styles if weighted.picture is not None
        ]
        refining = Refining(
            self.context.features,
            self.steps,
            self.scale,
            # Seeded anew, so that a place on a sheet is what a run by itself makes.
            torch.Generator().manual_seed(self.context.seed),
            lambda done, of, loss: progress(done, of, f"loss {loss:.3f}"),
        )
        return repaint_by_steps(plain, pictures, refining, self.strength, keep)


def _sheet(contents: list[Named], brushes: list[Brush], keep: Keep, context: Context) -> Pixels:
    """Every content by every brush, of one style each."""
    from pmavae.images.contact_sheet import Heading, contact_sheet
    from pmavae.style_transfer.repainting import repaint

    if not brushes:
        raise ValueError("none of the styles can be read")
    small = [_small(content.content, context) for content in contents]
    plain = [context.model.decode_pixels(latents) for latents in small]

    def cell(row: int, column: int) -> Pixels:
        brush, number, of = brushes[row], row * len(small) + column, len(brushes) * len(small)
        if brush.steps:
            painted = brush.paint(
                plain[column],
                keep,
                lambda done, steps, note="": context.progress(number * steps + done, of * steps, note),
            )
        else:
            mixture = [(brush.styles[0].style.z_style, 1.0)]
            painted = repaint(
                context.model, small[column], mixture, brush.strength, keep, plain=plain[column]
            )
        context.progress(number + 1, of)
        return painted

    columns = [Heading(content.name, picture) for content, picture in zip(contents, plain, strict=True)]
    rows = [Heading(brush.styles[0].name, brush.styles[0].picture) for brush in brushes]
    return contact_sheet(columns, rows, cell)


def _small(latents: Latents, context: Context) -> Latents:
    """Latents of the size of a cell: those of a latent file are not resized when they are read."""
    from pmavae.images.pixels import CELL_SIDE, fit_side

    if max(latents.width, latents.height) <= CELL_SIDE:
        return latents
    return context.model.encode(fit_side(context.model.decode_pixels(latents), CELL_SIDE))


@hookimpl
def register_tasks() -> list[Task]:
    return [StyleMix()]
