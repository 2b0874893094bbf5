"""Finding plugins, the built-in ones and those that are installed, and what they bring.

Entry points are loaded one by one, so that a broken plugin costs itself and nothing else.

PMAVAE_PLUGINS_STRICT, unless it is empty or 0, makes a broken plugin the end of every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import pluggy

from pmavae import __version__
from pmavae.errors import PMAVAEError, WeightsError
from pmavae_cli import hookspecs
from pmavae_cli.api import ENTRY_POINT_GROUP, PROJECT, Task, Training
from pmavae_cli.plugin_checks import (
    VERSION_NAME,
    command_problem,
    task_problem,
    training_problem,
    version_problem,
)

if TYPE_CHECKING:
    from pmavae.pretrained.manifest import WeightsIndex


BUILT_IN = ("encode", "decode", "upscale", "denoise", "style_mix", "texture_vary")
STRICT = "PMAVAE_PLUGINS_STRICT"
# Names of other people's plugins, separated by commas. With names, only these are loaded; `-name` leaves
# one out, a built-in one too; empty, none but the built-in ones are loaded.
SELECTION = "PMAVAE_PLUGINS"


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
    api: int | None = None  # version of the API that it is written for, if it says so
    tasks: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)  # their ids
    trainings: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    causes: list[BaseException] = field(default_factory=list)  # of those errors that were raised

    @property
    def brings(self) -> dict[str, list[str]]:
        """Names of what it brings, by kind."""
        return {
            "task": self.tasks,
            "weights": self.weights,
            "training": self.trainings,
            "command": self.commands,
        }

    @property
    def state(self) -> Literal["ok", "disabled", "broken"]:
        """Broken too where some of what it brings works and something else does not."""
        if self.errors:
            return "broken"
        return "disabled" if self.disabled else "ok"

    @property
    def complaints(self) -> list[str]:
        """What is wrong with it, a sentence each, with the remedy."""
        what = "is broken in part" if any(self.brings.values()) else "is broken and skipped"
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
    """All plugins, sound or broken, and what is sound of what they bring."""

    plugins: list[Plugin] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    commands: dict[str, click.Command] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    _weights: WeightsIndex | None = None  # None where no plugin brings any, so that no manifest was read
    _owners: dict[tuple[str, str], Plugin] = field(default_factory=dict)  # of a kind and a name
    _manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(PROJECT))

    def __post_init__(self) -> None:
        self._manager.add_hookspecs(hookspecs)

    def add(self, plugin: Plugin, load: Callable[[], Any]) -> None:
        """Load a plugin and take what it brings; what goes wrong is recorded in `plugin.errors`."""
        self.plugins.append(plugin)
        plugin.disabled = not self.selection.has(plugin)
        if plugin.disabled:
            return
        take: dict[str, Callable[[Plugin, Any], str | None]] = {
            "register_tasks": self._take_task,
            "register_weights": self._take_weights,
            "register_trainings": self._take_training,
            "register_commands": self._take_command,
        }
        hooks: dict[str, list[pluggy.HookImpl]] = {}
        with _recording(plugin):
            hooks = self._register(plugin, load())
        for name, taker in take.items():
            for hook in hooks.get(name, []):
                with _recording(plugin):
                    for brought in _call(hook):
                        if problem := taker(plugin, brought):
                            plugin.errors.append(problem)

    @property
    def weights(self) -> WeightsIndex:
        """All weights that have a name. Raises WeightsError where pmavae's own manifest cannot be read."""
        from pmavae.pretrained.manifest import released_weights  # not for every start

        return self._weights or released_weights()

    def owner(self, task: str) -> Plugin:
        """The plugin that brings a task."""
        return self._owners["task", task]

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

    def _register(self, plugin: Plugin, module: Any) -> dict[str, list[pluggy.HookImpl]]:
        """What a plugin implements, by hook."""
        # A plugin for another version may well have hooks that this one does not know.
        version = getattr(module, VERSION_NAME, None)
        plugin.api = version if type(version) is int else None
        if problem := version_problem(version):
            raise _Unfit(problem)
        # Two distributions may each have a plugin of one name.
        self._manager.register(module, f"{plugin.name} of {plugin.origin}")
        try:
            try:
                self._manager.check_pending()
            except pluggy.PluginValidationError as error:
                raise _Unfit(_misspelt(self._manager, module)) from error
            known = _hooks(self._manager)
            found = {
                name: [i for i in getattr(self._manager.hook, name).get_hookimpls() if i.plugin is module]
                for name in known
            }
            if not any(found.values()):
                raise _Unfit(
                    f"it implements no hook: it needs one of {', '.join(known)}, marked with @hookimpl"
                )
            return found
        except BaseException:
            # A misspelt hook would otherwise fail the check of every plugin after this one.
            self._manager.unregister(module)
            raise

    def _take_task(self, plugin: Plugin, task: Any) -> str | None:
        if problem := task_problem(task) or self._clash(plugin, "task", task.name):
            return problem
        self.tasks[task.name] = task
        plugin.tasks.append(task.name)
        return None

    def _take_command(self, plugin: Plugin, command: Any) -> str | None:
        if problem := command_problem(command) or self._clash(plugin, "command", command.name):
            return problem
        self.commands[command.name] = command
        plugin.commands.append(command.name)
        return None

    def _take_training(self, plugin: Plugin, training: Any) -> str | None:
        if problem := training_problem(training) or self._clash(plugin, "training", training.name):
            return problem
        self.trainings[training.name] = training
        plugin.trainings.append(training.name)
        return None

    def _take_weights(self, plugin: Plugin, path: Any) -> str | None:
        from pmavae.pretrained.manifest import Shelf

        if not isinstance(path, str | os.PathLike):
            return f"register_weights returned {path!r:.60}, which is not the path of a manifest"
        try:
            shelf = Shelf.load(Path(path), _named(plugin))
            self._weights = self.weights.beside(shelf)
        except WeightsError as error:
            return str(error)
        plugin.weights += [entry.id for entry in shelf.manifest.entries]
        return None

    def _clash(self, plugin: Plugin, kind: str, name: str) -> str | None:
        """Give the plugin a name, or say whose it is already."""
        for other in ("task", "command") if kind in ("task", "command") else (kind,):
            if owner := self._owners.get((other, name)):
                what = "" if other == kind else f"the {other} "
                return (
                    f"{kind} {name} is already {what or 'that '}of {_named(owner)}, which keeps it "
                    f"unless {SELECTION}=-{owner.name} leaves that out"
                )
        self._owners[kind, name] = plugin
        return None


class _Unfit(ValueError):
    """Why a plugin is not loaded, as a sentence of its own."""


@contextmanager
def _recording(plugin: Plugin) -> Iterator[None]:
    """Whatever is raised in here is the plugin's error."""
    try:
        yield
    except (Exception, SystemExit) as error:
        plugin.errors.append(str(error) if isinstance(error, _Unfit) else f"{type(error).__name__}: {error}")
        plugin.causes.append(error)


def _named(plugin: Plugin) -> str:
    return f"plugin {plugin.name} ({plugin.origin})"


def _call(implementation: pluggy.HookImpl) -> Sequence[Any]:
    brought: Sequence[Any] = implementation.function()  # type: ignore[assignment]
    return brought


def _hooks(manager: pluggy.PluginManager) -> list[str]:
    return [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name) is not None]


def _misspelt(manager: pluggy.PluginManager, module: Any) -> str:
    """Which hooks of a module are none of pmavae's."""
    known = _hooks(manager)
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
