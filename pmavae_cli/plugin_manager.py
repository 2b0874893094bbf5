"""Finding plugins, the built-in ones and those that are installed, and what they bring.

Entry points are loaded one by one, so that a broken plugin costs itself and nothing else.

PMAVAE_PLUGINS_STRICT, unless it is empty or 0, makes a broken plugin the end of every run.
"""

from __future__ import annotations

import os
import re
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
from pmavae.config import PRESETS
from pmavae.errors import PMAVAEError, WeightsError
from pmavae.training.phases import OBJECTIVES, Phase
from pmavae_cli import hookspecs
from pmavae_cli.api import API_VERSION, ENTRY_POINT_GROUP, OLDEST_API_VERSION, PROJECT, Task, Training
from pmavae_cli.commands import COMMANDS
from pmavae_cli.options import common_options

if TYPE_CHECKING:
    from pmavae.pretrained.manifest import WeightsIndex


BUILT_IN = ("encode", "decode", "upscale", "denoise", "style_mix", "texture_vary")
STRICT = "PMAVAE_PLUGINS_STRICT"
# Names of other people's plugins, separated by commas. With names, only these are loaded; `-name` leaves
# one out, a built-in one too; empty, none but the built-in ones are loaded.
SELECTION = "PMAVAE_PLUGINS"
TASK_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
VERSION_NAME = "PMAVAE_API"  # what a plugin says which version of the API it is written for


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
        hooks: dict[str, list[pluggy.HookImpl]] = {}
        with _recording(plugin):
            hooks = self._register(plugin, load())
        for name in KINDS:
            for hook in hooks.get(name, []):
                with _recording(plugin):
                    for thing in hook.function():  # type: ignore[attr-defined]
                        if problem := self._take(plugin, name, thing):
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
        if problem := _version_problem(version):
            raise _Unfit(problem)
        # Two distributions may each have a plugin of one name.
        self._manager.register(module, f"{plugin.name} of {plugin.origin}")
        try:
            try:
                self._manager.check_pending()
            except pluggy.PluginValidationError as error:
                raise _Unfit(_misspelt(self._manager, module)) from error
            found = {
                name: [i for i in getattr(self._manager.hook, name).get_hookimpls() if i.plugin is module]
                for name in KINDS
            }
            if not any(found.values()):
                raise _Unfit(
                    f"it implements no hook: it needs one of {', '.join(KINDS)}, marked with @hookimpl"
                )
            return found
        except BaseException:
            # A misspelt hook would otherwise fail the check of every plugin after this one.
            self._manager.unregister(module)
            raise

    def _take(self, plugin: Plugin, hook: str, thing: Any) -> str | None:
        """Take what a plugin brings, or say why it cannot be offered."""
        kind, classes, what, problem_of = KINDS[hook]
        if not isinstance(thing, classes):
            return f"{hook} returned {thing!r:.60}, which is not {what}"
        if kind == "weights":
            return self._take_weights(plugin, thing)
        problem = problem_of(thing) or self._clash(plugin, kind, thing.name)
        if problem is None:
            found: dict[str, Any] = getattr(self, f"{kind}s")
            found[thing.name] = thing
            plugin.brings[kind].append(thing.name)
        return problem

    def _take_weights(self, plugin: Plugin, path: str | os.PathLike[str]) -> str | None:
        from pmavae.pretrained.manifest import Shelf

        try:
            shelf = Shelf.load(Path(path), _named(plugin))
            self._weights = self.weights.beside(shelf)
        except WeightsError as error:
            return str(error)
        plugin.weights += [entry.id for entry in shelf.entries]
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


def _misspelt(manager: pluggy.PluginManager, module: Any) -> str:
    """Which hooks of a module are none of pmavae's."""
    marked = [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]
    unknown = ", ".join(repr(name) for name in marked if name not in KINDS)
    return f"unknown hook {unknown}: pmavae calls {', '.join(KINDS)}"


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


def _version_problem(version: Any) -> str | None:
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


def _task_problem(task: Task) -> str | None:
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


def _command_problem(command: click.Command) -> str | None:
    name = command.name
    if not isinstance(name, str) or not TASK_NAME.fullmatch(name):
        return f"command {name!r:.60} has no name of lower-case words and hyphens"
    if not command.get_short_help_str():
        return f"command {name} has no help"
    return f"command {name} has the name of a command of pmavae" if name in COMMANDS else None


def _training_problem(training: Training) -> str | None:
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


# By hook: what it brings, of which classes, what these are called, and what may be wrong with one.
KINDS: dict[str, tuple[str, Any, str, Callable[[Any], str | None]]] = {
    "register_tasks": ("task", Task, "a Task", _task_problem),
    "register_weights": ("weights", (str, os.PathLike), "the path of a manifest", lambda path: None),
    "register_trainings": ("training", Training, "a Training", _training_problem),
    "register_commands": ("command", click.Command, "a click command", _command_problem),
}
