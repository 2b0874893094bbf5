"""Why something that a plugin brings cannot be offered, if it cannot: a sentence, or None."""

from __future__ import annotations

import re
from typing import Any

import click

from pmavae.config import PRESETS
from pmavae.training.phases import OBJECTIVES, Phase
from pmavae_cli.api import API_VERSION, OLDEST_API_VERSION, Task, Training
from pmavae_cli.commands import COMMANDS
from pmavae_cli.options import common_options

TASK_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
VERSION_NAME = "PMAVAE_API"  # what a plugin says which version of the API it is written for


def version_problem(version: Any) -> str | None:
    """What is wrong with the version of the API that a plugin names; None for one that names none."""
    if version is None:
        return None
    if type(version) is not int:
        return f"{VERSION_NAME} is {version!r:.40}: it should be a whole number, such as {API_VERSION}"
    if version > API_VERSION:
        return (
            f"it is written for version {version} of the task API, and this pmavae has version "
            f"{API_VERSION}: update pmavae"
        )
    if version < OLDEST_API_VERSION:
        return (
            f"it is written for version {version} of the task API, and this pmavae has version {API_VERSION} "
            f"and supports {OLDEST_API_VERSION} or newer: update the plugin"
        )
    return None


def task_problem(task: Any) -> str | None:
    """Of a task."""
    if not isinstance(task, Task):
        return f"register_tasks returned {task!r:.60}, which is not a Task"
    if problem := _name_problem("task", task):
        return problem
    name = task.name
    if not all(isinstance(param, click.Parameter) for param in task.params):
        return f"task {name} has params that are not click parameters"
    common = common_options(task.params)
    taken = {text for option in common for text in (option.name, *option.opts)} | {"inputs"}
    for param in task.params:
        if clash := sorted(taken & {param.name, *param.opts}):
            return f"task {name} has a parameter {clash[0]}, which every task has already"
    if task.weights is None or task.weights in OBJECTIVES:
        return None
    if not isinstance(task.weights, str) or not TASK_NAME.fullmatch(task.weights):
        return f"task {name} has weights {task.weights!r:.60}: use lower-case words and hyphens"
    if type(task).build_network is Task.build_network:
        return f"task {name} has weights {task.weights} of its own, but no build_network for them"
    return None


def command_problem(command: Any) -> str | None:
    """Of a command."""
    if not isinstance(command, click.Command):
        return f"register_commands returned {command!r:.60}, which is not a click command"
    name = command.name
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        return f"command {name!r:.60} has no name of lower-case words and hyphens"
    if not command.get_short_help_str():
        return f"command {name} has no help"
    return f"command {name} has the name of a command of pmavae" if name in COMMANDS else None


def training_problem(training: Any) -> str | None:
    """Of a training."""
    if not isinstance(training, Training):
        return f"register_trainings returned {training!r:.60}, which is not a Training"
    if problem := _name_problem("training", training):
        return problem
    name = training.name
    if name in OBJECTIVES:
        return f"training {name} has the name of a training of pmavae"
    if not training.phases or not all(isinstance(phase, Phase) for phase in training.phases):
        return f"training {name} has no phases that are each a Phase"
    if not training.presets or not set(training.presets) <= set(PRESETS):
        return f"training {name} has presets {training.presets!r:.60}: use some of {', '.join(PRESETS)}"
    return None


def _name_problem(kind: str, brought: Task | Training) -> str | None:
    name = getattr(brought, "name", None)
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        return f"{kind} {type(brought).__name__} has the name {name!r:.60}: use lower-case words and hyphens"
    if not isinstance(getattr(brought, "help", None), str) or not brought.help.strip():
        return f"{kind} {name} has no help line"
    if kind == "task" and name in COMMANDS:
        return f"task {name} has the name of a command of pmavae"
    return None
