"""Finding tasks: the built-in ones and those of installed plugins.

Entry points are loaded one by one, so that a broken plugin costs itself and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
import pluggy

from pmavae import __version__
from pmavae_cli import hookspecs
from pmavae_cli.api import ENTRY_POINT_GROUP, PROJECT, Task
from pmavae_cli.options import COMMON_OPTIONS

BUILT_IN = ("encode", "decode", "upscale", "denoise", "style_mix", "texture_vary")
COMMANDS = frozenset({"train", "bench", "info", "plugins"})  # names that a task cannot have
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass
class Plugin:
    """A plugin as `pmavae plugins` shows it."""

    name: str
    version: str
    origin: str  # "built-in", or the distribution that brings it
    tasks: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass
class Registry:
    """All plugins, sound or broken, and the tasks of the sound ones."""

    plugins: list[Plugin] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    _owners: dict[str, Plugin] = field(default_factory=dict)
    _manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))

    def __post_init__(self) -> None:
        self._manager.add_hookspecs(hookspecs)

    def add(self, plugin: Plugin, load: Callable[[], Any]) -> None:
        """Load a plugin and take its tasks; what goes wrong is recorded in `plugin.errors`."""
        self.plugins.append(plugin)
        try:
            for task in self._register(plugin, load()):
                if problem := self._problem(task):
                    plugin.errors.append(problem)
                else:
                    self.tasks[task.name] = task
                    self._owners[task.name] = plugin
                    plugin.tasks.append(task.name)
        except (Exception, SystemExit) as error:
            plugin.errors.append(f"{type(error).__name__}: {error}")

    def _register(self, plugin: Plugin, module: Any) -> list[Task]:
        self._manager.register(module, plugin.name)
        try:
            self._manager.check_pending()
            found = [i for i in self._manager.hook.register_tasks.get_hookimpls() if i.plugin is module]
            if not found:
                raise ValueError("it implements no hook: register_tasks, marked with @hookimpl, is missing")
            return [task for implementation in found for task in _call(implementation)]
        except BaseException:
            # A misspelt hook would otherwise fail the check of every plugin after this one.
            self._manager.unregister(module)
            raise

    def _problem(self, task: Any) -> str | None:
        """Why a task cannot be offered, if it cannot."""
        if not isinstance(task, Task):
            return f"register_tasks returned {task!r:.60}, which is not a Task"
        name = getattr(task, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return f"task {type(task).__name__} has the name {name!r:.60}: use lower-case words and hyphens"
        if not isinstance(getattr(task, "help", None), str) or not task.help.strip():
            return f"task {name} has no help line"
        if name in COMMANDS:
            return f"task {name} has the name of a command of pmavae"
        if owner := self._owners.get(name):
            return f"task {name} is already that of plugin {owner.name} ({owner.origin}), which keeps it"
        if not all(isinstance(param, click.Parameter) for param in task.params):
            return f"task {name} has params that are not click parameters"
        taken = {text for option in COMMON_OPTIONS for text in (option.name, *option.opts)} | {"inputs"}
        for param in task.params:
            if clash := sorted(taken & {param.name, *param.opts}):
                return f"task {name} has a parameter {clash[0]}, which every task has already"
        return None


def _call(implementation: pluggy.HookImpl) -> Sequence[Task]:
    tasks: Sequence[Task] = implementation.function()  # type: ignore[assignment]
    return tasks


def load_plugins() -> Registry:
    """The built-in tasks first, then every entry point, in the order of their names."""
    registry = Registry()
    for name in BUILT_IN:
        registry.add(
            Plugin(name, __version__, "built-in"), partial(import_module, f"pmavae_cli.plugins.{name}")
        )
    found = {(e.name, e.value): e for e in entry_points(group=ENTRY_POINT_GROUP)}
    for _, entry in sorted(found.items()):
        registry.add(_describe(entry), entry.load)
    return registry


def _describe(entry: EntryPoint) -> Plugin:
    if entry.dist is None:
        return Plugin(entry.name, "unknown", entry.value)
    return Plugin(entry.name, entry.dist.version, entry.dist.name)
