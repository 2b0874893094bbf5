"""The hooks that a plugin may implement; each of them is optional, and one has to be there."""

from collections.abc import Sequence
from pathlib import Path

import click
import pluggy

from pmavae_cli.api import PROJECT, Task, Training

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def register_tasks() -> Sequence[Task]:  # type: ignore[empty-body]
    """The tasks that the plugin adds to the command line."""


@hookspec
def register_weights() -> Sequence[Path]:  # type: ignore[empty-body]
    """The manifests of the plugin's weights, which lie beside them."""


@hookspec
def register_trainings() -> Sequence[Training]:  # type: ignore[empty-body]
    """What `pmavae train --task NAME` can make with the plugin."""


@hookspec
def register_commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """The commands that the plugin adds, beside tasks."""
