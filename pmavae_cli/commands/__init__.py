"""The commands that are not tasks, as the help lists them; each is imported when it is used.

Importing all of them would take as long as everything else that `pmavae --help` does.
"""

from collections.abc import Mapping
from importlib import import_module

import click

from pmavae_cli.api import Training

COMMANDS = {
    "train": "Train a model, or the network of a task, on your own pictures.",
    "bench": "Measure reconstruction, or with --task restoration, on folders of pictures.",
    "compare": "Compare two pictures or latent files: PSNR, SSIM and differences.",
    "info": "Describe files, or the model of a preset.",
    "weights": "List, fetch, verify, import and push weights.",
    "export": "Write a model as ONNX files, for other runtimes.",
    "plugins": "List the plugins, what they bring, and what is wrong with a broken one.",
    "completion": "Print the completion script of bash (4.4 or newer), zsh or fish.",
}
_FILES = frozenset({"completion", "export", "plugins"})  # commands that are one file; the others are folders


def open_command(name: str, trainings: Mapping[str, Training]) -> click.Command:
    """A command of COMMANDS; trainings: those that plugins bring."""
    module = import_module(f"pmavae_cli.commands.{name}{'' if name in _FILES else '.command'}")
    command: click.Command = module.train_with(trainings) if name == "train" else getattr(module, name)
    return command
