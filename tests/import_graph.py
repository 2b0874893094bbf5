"""Who imports whom, read from the source: late imports and those for types alone as well."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Arrow = tuple[str, str]  # who imports, and what


@dataclass
class Graph:
    """The modules of some packages, by their dotted names."""

    paths: dict[str, str] = field(
        default_factory=dict
    )  # from the folder of the packages: pmavae/pretrained/hub.py
    imports: dict[str, set[str]] = field(default_factory=dict)  # modules of the packages
    at_the_top: dict[str, set[str]] = field(default_factory=dict)  # those that run when it is imported
    others: dict[str, set[str]] = field(default_factory=dict)  # first names of other packages
    others_at_the_top: dict[str, set[str]] = field(default_factory=dict)

    @property
    def arrows(self) -> set[Arrow]:
        return {(importer, name) for importer, names in self.imports.items() for name in names}

    def loaded_with(self, module: str) -> set[str]:
        """The other packages that come with an import of a module, and of all that it imports in turn."""
        seen: set[str] = set()
        found: set[str] = set()
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            found |= self.others_at_the_top[name]
            waiting += self.at_the_top[name]
            parts = name.split(".")
            waiting += [above for n in range(1, len(parts)) if (above := ".".join(parts[:n])) in self.paths]
        return found


def read_graph(folder: Path, *packages: str) -> Graph:
    """The graph of packages that lie in a folder."""
    graph = Graph()
    files = sorted(path for package in packages for path in (folder / package).rglob("*.py"))
    for path in files:
        below = path.relative_to(folder).with_suffix("")
        graph.paths[".".join(below.parts).removesuffix(".__init__")] = path.relative_to(folder).as_posix()
    for module, place in graph.paths.items():
        tree = ast.parse((folder / place).read_text("utf-8"))
        package = module if place.endswith("/__init__.py") else module.rpartition(".")[0]
        everything = list(ast.walk(tree))
        top = list(_run_at_once(tree.body))
        for nodes, inside, outside in (
            (everything, graph.imports, graph.others),
            (top, graph.at_the_top, graph.others_at_the_top),
        ):
            names = {name for node in nodes for name in _named(node, package, graph.paths)}
            inside[module] = {name for name in names if name in graph.paths} - {module}
            outside[module] = {first for name in names if (first := name.split(".")[0]) not in packages}
    return graph


def _named(node: ast.AST, package: str, known: Mapping[str, str]) -> Iterator[str]:
    """What a statement imports: a module for each name out of it, as far as that is one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        home = node.module or ""
        if node.level:
            parts = package.split(".")
            home = ".".join([*parts[: len(parts) - node.level + 1], *([home] if home else [])])
        for alias in node.names:
            name = f"{home}.{alias.name}"
            yield name if name in known else home


def _run_at_once(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The statements that run when a module is imported."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _run_at_once(node.body)
            yield from _run_at_once(node.orelse)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _run_at_once([*node.body, *handlers, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With | ast.ClassDef):
            yield from _run_at_once(node.body)


def circles(arrows: set[Arrow]) -> list[list[str]]:
    """The groups of modules that import each other, directly or by way of others; each sorted."""
    targets: dict[str, set[str]] = {}
    for importer, name in arrows:
        targets.setdefault(importer, set()).add(name)
    reached = {module: _reached(module, targets) for module in targets}
    groups = {
        frozenset(other for other in found if module in reached.get(other, ()))
        for module, found in reached.items()
        if module in found
    }
    return sorted(sorted(group) for group in groups)


def _reached(module: str, targets: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [*targets.get(module, ())]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += targets.get(name, ())
    return found


@dataclass(frozen=True)
class Room:
    """A row of the table of rooms."""

    paths: tuple[str, ...]  # a folder ends in /
    may_import: tuple[str, ...]  # beside its own: a path of another room, or a folder of rooms


def read_rooms(text: str) -> list[Room]:
    """The rows of the table of a page whose columns are room, what is in it, and what it may import."""
    rooms = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and (paths := re.findall(r"`([^`]+)`", cells[0])):
            rooms.append(Room(tuple(paths), tuple(re.findall(r"`([^`]+)`", cells[2]))))
    return rooms


def room_of(path: str, rooms: list[Room]) -> Room | None:
    """The room of a file: the one that is named most precisely."""
    places = [(len(place), room) for room in rooms for place in room.paths if is_in(path, place)]
    return max(places, key=lambda found: found[0])[1] if places else None


def is_in(path: str, place: str) -> bool:
    """Whether a file is what a table names: itself, or what lies in a folder."""
    return path == place or (place.endswith("/") and path.startswith(place))


def forbidden(graph: Graph, rooms: list[Room]) -> set[Arrow]:
    """The arrows from a room to another that its row does not name.

    What lies in no room is free, and so is importing it.
    """
    found = set()
    for importer, name in graph.arrows:
        home, other = (room_of(graph.paths[module], rooms) for module in (importer, name))
        if home is None or other is None or home is other:
            continue
        if not any(place in other.paths or is_in(graph.paths[name], place) for place in home.may_import):
            found.add((importer, name))
    return found
