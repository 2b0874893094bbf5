"""`pmavae train`: make a model, or a better one."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import click

from pmavae_cli import options
from pmavae_cli.api import Training
from pmavae_cli.console import Console

_PATH = click.Path(path_type=Path)
RESUME = ("auto", "never")
TASKS = ("base", "denoise", "upscale", "texture-vary")


@click.command()
@click.option(
    "--task",
    type=click.Choice(TASKS),
    help="What to train: the autoencoder, or the network of a task.  [default: base]",
)
@options.with_preset("The shape of the model.  [default: tiny]")
@click.option(
    "--data",
    multiple=True,
    metavar="DIR_OR_TAR...",
    help="Pictures: a folder, a tar, or one file; may be given several times. A manifest.csv beside them "
    "(columns file and class) balances their classes.",
)
@click.argument("more_data", nargs=-1, metavar="[DIR_OR_TAR]...")
@click.option("--out", type=_PATH, help="The folder of the run.  [default: runs/PRESET]")
@click.option("--config", type=_PATH, help="Settings as TOML or JSON; options override.")
@click.option("--time-limit", metavar="TIME", help="Length of the run, such as 2h or 90m.  [default: 2h]")
@click.option("--steps", type=click.IntRange(1), help="Length of the run in optimizer steps instead.")
@click.option("--pause-after", metavar="TIME", help="Save and end this session; run again to continue.")
@click.option(
    "--init-from",
    metavar="WEIGHTS",
    help="Start from weights: an id, a file, a folder or org/name[@revision][:file]. Those of small grow "
    "into base.",
)
@click.option(
    "--branch-from",
    type=_PATH,
    metavar="RUN",
    help="Begin where another run stands, with its settings and optimizers, and let the rate fall to "
    "nothing: shows what that run is worth, which goes on as it is.",
)
@click.option(
    "--resume",
    type=click.Choice(RESUME),
    default="auto",
    show_default=True,
    help="auto continues the run in --out, if there is one.",
)
@click.option(
    "--perceptual",
    metavar="NAME",
    help="Feature network: vgg16, efficientnet-lite0, none, or a VMamba with weights: vmamba-tiny=FILE.",
)
@click.option("--classes", type=_PATH, help="A manifest.csv that is elsewhere.")
@click.option(
    "--validate", type=_PATH, help="Pictures to validate on.  [default: some of the data, held out]"
)
@click.option("--cache", type=_PATH, help="The decoded pictures.  [default: in the run]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting: loss.kl=1e-5, phases.0.batch=4.",
)
@click.option("--save-every", default="5m", show_default=True, metavar="TIME", help="Between checkpoints.")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="Checkpoints to keep.")
@click.option(
    "--log-every", type=click.IntRange(1), default=50, show_default=True, help="Steps between lines."
)
@options.with_device
@options.with_offline
@options.with_threads
@click.option("--seed", type=int, help="The same seed makes the same run.  [default: 0]")
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and end.")
@options.with_quiet
@click.pass_context
@options.with_console
def train(ctx: click.Context, console: Console, **values: Any) -> None:
    """Train a model, or the network of a task, on your own pictures.

    A run is a folder: checkpoints, the log, previews, and in the end model.safetensors, which every task
    takes as --weights. Running the same command again continues it. Ctrl-C saves before it ends.
    """
    if values["steps"] and values["time_limit"]:
        raise click.UsageError("--steps and --time-limit are two lengths of one run: give one.")
    options.calm_threads()
    from pmavae_cli.commands.train.work import TrainingOptions, run_training

    values["data"] += values.pop("more_data")
    ctx.exit(run_training(TrainingOptions(**values), console, ctx.obj))


def train_with(trainings: Mapping[str, Training]) -> click.Command:
    """The command, with the trainings of plugins beside pmavae's own."""
    command, task = copy(train), copy(next(param for param in train.params if param.name == "task"))
    task.type = click.Choice([*TASKS, *trainings])
    command.params = [task if param.name == "task" else param for param in train.params]
    return command
