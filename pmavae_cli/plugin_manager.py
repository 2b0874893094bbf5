"""Finding tasks: the built-in ones and those of installed plugins.

Entry points are loaded one by one, so that a broken plugin costs itself and nothing else.

PMAVAE_PLUGINS selects plugins of other people: a list of names, separated by commas. With names, only these
are loaded; `-name` leaves one out, a built-in one too; empty, none but the built-in ones are loaded.
PMAVAE_PLUGINS_STRICT, unless it is empty or 0, makes a broken plugin the end of every run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import click
import pluggy

from pmavae import __version__
from pmavae.errors import PMAVAEError
from pmavae_cli import hookspecs
from pmavae_cli.api import ENTRY_POINT_GROUP, PROJECT, Task
from pmavae_cli.options import common_options

BUILT_IN = ("encode", "decode", "upscale", "denoise", "style_mix", "texture_vary")
# Names that a task cannot have.
COMMANDS = frozenset({"train", "bench", "compare", "info", "plugins", "completion"})
TASK_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SELECTION = "PMAVAE_PLUGINS"
STRICT = "PMAVAE_PLUGINS_STRICT"


class PluginError(PMAVAEError):
    """A broken plugin, where none is tolerated."""


@dataclass
class Plugin:
    """A plugin as `pmavae plugins` shows it."""

    name: str
    version: str
    origin: str  # "built-in", or the distribution that brings it
    entry_point: str | None = None  # of another distribution's: the module, and the object in it if any
    disabled: bool = False  # by PMAVAE_PLUGINS, so that it was not even imported
    tasks: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    causes: list[BaseException] = field(default_factory=list)  # of those errors that were raised

    @property
    def state(self) -> Literal["ok", "disabled", "broken"]:
        """Broken too where some of its tasks work and another does not."""
        if self.errors:
            return "broken"
        return "disabled" if self.disabled else "ok"

    @property
    def complaints(self) -> list[str]:
        """What is wrong with it, a sentence each, with the remedy."""
        what = "is broken in part" if self.tasks else "is broken and skipped"
        return [
            f"plugin {self.name} ({self.origin} {self.version}) {what}: {error}; repair it, or leave it out "
            f"with {SELECTION}=-{self.name}"
            for error in self.errors
        ]


@dataclass(frozen=True)
class Selection:
    """Which plugins are loaded, as PMAVAE_PLUGINS has it."""

    only: tuple[str, ...] | None = None  # of those that are not built in; None for all
    without: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Selection:
        """The variable's value, None where it is not set."""
        if text is None:
            return cls()
        names = [name for part in text.split(",") if (name := part.strip())]
        only = tuple(name for name in names if not name.startswith("-"))
        without = tuple(name[1:] for name in names if name.startswith("-"))
        return cls(None if without and not only else only, without)

    def has(self, plugin: Plugin) -> bool:
        """Whether a plugin is loaded."""
        name = _plain(plugin.name)
        if name in map(_plain, self.without):
            return False
        return self.only is None or plugin.entry_point is None or name in map(_plain, self.only)

    def unknown(self, plugins: Sequence[Plugin]) -> list[str]:
        """Complaints about names that no plugin has."""
        names = {_plain(plugin.name) for plugin in plugins}
        return [
            f"{SELECTION} names {name!r}, and no plugin has that name: pmavae plugins lists those there are"
            for name in (*(self.only or ()), *self.without)
            if _plain(name) not in names
        ]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


@dataclass
class Registry:
    """All plugins, sound or broken, and the tasks of the sound ones."""

    plugins: list[Plugin] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    _owners: dict[str, Plugin] = field(default_factory=dict)
    _manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))

    def __post_init__(self) -> None:
        self._manager.add_hookspecs(hookspecs)

    def add(self, plugin: Plugin, load: Callable[[], Any]) -> None:
        """Load a plugin and take its tasks; what goes wrong is recorded in `plugin.errors`."""
        self.plugins.append(plugin)
        plugin.disabled = not self.selection.has(plugin)
        if plugin.disabled:
            return
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
            plugin.causes.append(error)

    @property
    def complaints(self) -> list[str]:
        """What is wrong with the plugins and with their selection, a sentence each."""
        broken = [complaint for plugin in self.plugins for complaint in plugin.complaints]
        return [*self.selection.unknown(self.plugins), *broken]

    def check(self) -> None:
        """Raise PluginError where anything is wrong."""
        if complaints := self.complaints:
            rest = f" (and {len(complaints) - 1} more: pmavae plugins lists them)" if complaints[1:] else ""
            raise PluginError(f"{complaints[0]}{rest}")

    def _register(self, plugin: Plugin, module: Any) -> list[Task]:
        # Two distributions may each have a plugin of one name.
        self._manager.register(module, f"{plugin.name} of {plugin.origin}")
        try:
            try:
                self._manager.check_pending()
            except pluggy.PluginValidationError as error:
                raise ValueError(_misspelt(self._manager, module)) from error
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
        if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
            return f"task {type(task).__name__} has the name {name!r:.60}: use lower-case words and hyphens"
        if not isinstance(getattr(task, "help", None), str) or not task.help.strip():
            return f"task {name} has no help line"
        if name in COMMANDS:
            return f"task {name} has the name of a command of pmavae"
        if owner := self._owners.get(name):
            return (
                f"task {name} is already that of plugin {owner.name} ({owner.origin}), which keeps it "
                f"unless {SELECTION}=-{owner.name} leaves that out"
            )
        if not all(isinstance(param, click.Parameter) for param in task.params):
            return f"task {name} has params that are not click parameters"
        common = common_options(task.params)
        taken = {text for option in common for text in (option.name, *option.opts)} | {"inputs"}
        for param in task.params:
            if clash := sorted(taken & {param.name, *param.opts}):
                return f"task {name} has a parameter {clash[0]}, which every task has already"
        return None


def _call(implementation: pluggy.HookImpl) -> Sequence[Task]:
    tasks: Sequence[Task] = implementation.function()  # type: ignore[assignment]
    return tasks


def _misspelt(manager: pluggy.PluginManager, module: Any) -> str:
    """Which hooks of a module are none of pmavae's."""
    known = [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name) is not None]
    unknown = [
        name
        for name in dir(module)
        if manager.parse_hookimpl_opts(module, name) is not None and name not in known
    ]
    return f"unknown hook {', '.join(map(repr, unknown))}: pmavae calls {', '.join(known)}"


def load_plugins(environment: Mapping[str, str] = os.environ) -> Registry:
    """The built-in tasks first, then every entry point, in the order of their names.

    Raises PluginError where PMAVAE_PLUGINS_STRICT is set and anything is wrong.
    """
    registry = find_plugins(environment)
    if is_strict(environment):
        registry.check()
    return registry


def is_strict(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a broken plugin ends a run."""
    return environment.get(STRICT, "") not in ("", "0")


def find_plugins(environment: Mapping[str, str] = os.environ) -> Registry:
    """As `load_plugins`, but broken plugins are only recorded, whatever PMAVAE_PLUGINS_STRICT says."""
    registry = Registry(selection=Selection.parse(environment.get(SELECTION)))
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
        return Plugin(entry.name, "unknown", "unknown", entry.value)
    return Plugin(entry.name, entry.dist.version, entry.dist.name, entry.value)
