"""One plugin as it was found, and which plugins are loaded.

PMAVAE_PLUGINS selects plugins of other people: a list of names, separated by commas. With names, only these
are loaded; `-name` leaves one out, a built-in one too; empty, none but the built-in ones are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

SELECTION = "PMAVAE_PLUGINS"


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
