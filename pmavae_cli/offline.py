"""`--offline`: the network is not asked for anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

VARIABLE = "HF_HUB_OFFLINE"
_TRUE = ("1", "ON", "YES", "TRUE")  # as the client reads its variables
HELP = "Ask the network for nothing: only what is here already is used."


def go_offline() -> Callable[[], None]:
    """Tell the Hub's client, wherever it is used, also in plugins and in processes of this one.

    Returns what takes that back.
    """
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    # The variable is read when the client is imported, which a plugin may have done already.
    constants: Any = sys.modules.get("huggingface_hub.constants")
    was = constants.HF_HUB_OFFLINE if constants else (before or "").upper() in _TRUE
    _set_constant(True)

    def back() -> None:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
        _set_constant(was)

    return back


def _set_constant(value: bool) -> None:
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]


def offline_option() -> click.Option:
    """For a command's list of parameters."""
    return click.Option(["--offline"], is_flag=True, callback=_switch, help=HELP)


def with_offline(command: Any) -> Any:
    """The same as a decorator; the function gets no parameter of it."""
    return click.option("--offline", is_flag=True, expose_value=False, callback=_switch, help=HELP)(command)


def _switch(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        ctx.call_on_close(go_offline())
    return value
