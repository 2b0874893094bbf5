"""A task for pmavae with a network of its own, the weights of it, its training, and a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pmavae_cli.api import Batch, Context, Phase, Task, Training, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pmavae_cli.api import Pixels

PMAVAE_API = 1


class Deblur(Task):
    name = "deblur"
    help = "Make pictures sharper that are a little out of focus."
    input_kind = "pixels"
    weights = "deblur"
    params = (
        click.Option(["--strength"], type=click.FloatRange(0, 1), default=1.0, help="How much. Default: 1."),
    )

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        from pmavae_deblur.network import Sharpener

        return Sharpener(**settings)

    def transform(self, content: Pixels, context: Context, strength: float) -> Pixels:
        from pmavae.autoencoder import to_tensor
        from pmavae.images.pixels import to_pixels

        picture = to_tensor(content).to(context.device)
        sharper = context.task_model(picture)
        return to_pixels(picture.lerp(sharper, strength).clamp(0, 1)[0])


class DeblurTraining(Training):
    name = "deblur"
    help = "The network of deblur, on pictures that are blurred for it."
    phases = (Phase("crops", 1.0, crop=64, batch=16, learning_rate=2e-3),)

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        return {"channels": 16}

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        return Deblur().build_network(settings)

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        from pmavae_deblur.network import blur

        blurred = blur(batch.pictures)
        error = network(blurred + 0.005 * batch.draws.normal(blurred)) - batch.pictures
        return {"loss": error.abs().mean(), "mse": error.square().mean()}

    def score(self, network: nn.Module, batch: Batch) -> Mapping[str, float]:
        from pmavae.images.metrics import psnr
        from pmavae_deblur.network import blur

        return {"psnr": float(psnr(network(blur(batch.pictures)).clamp(0, 1), batch.pictures))}

    def preview(self, network: nn.Module, batch: Batch) -> Sequence[Tensor]:
        from pmavae_deblur.network import blur

        blurred = blur(batch.pictures)
        return [blurred, network(blurred), batch.pictures]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
def sharpness(files: tuple[str, ...]) -> None:
    """Tell how sharp pictures are: the mean step from pixel to pixel, in levels of 0 to 255."""
    import numpy as np
    from PIL import Image

    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32)
        steps = [np.abs(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)]
        click.echo(f"{file}\t{np.mean(steps):.2f}")


@hookimpl
def register_tasks() -> list[Task]:
    return [Deblur()]


@hookimpl
def register_weights() -> list[Path]:
    return [Path(__file__).with_name("weights") / "manifest.json"]


@hookimpl
def register_trainings() -> list[Training]:
    return [DeblurTraining()]


@hookimpl
def register_commands() -> list[click.Command]:
    return [sharpness]
