"""The hooks that a plugin may implement. There is one."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from pmavae_cli.api import PROJECT, Task

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def register_tasks() -> Sequence[Task]:  # type: ignore[empty-body]
    """The tasks that the plugin adds to the command line."""
