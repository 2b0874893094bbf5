"""Who may import whom: the table of docs/architecture.md, and what holds everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import Graph, Room, circles, forbidden, read_graph, read_rooms, room_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"

# Who imports what against a rule, or closes a circle: to be repaired, and never to be added to.
EXCEPTIONS: dict[str, set[str]] = {}

# Modules that a command line loads before it is known whether anything will be computed.
TORCH_FREE = [
    "pmavae",
    "pmavae.config",
    "pmavae.network_configs",
    "pmavae.errors",
    "pmavae.files.header",
    "pmavae.pretrained.hub",
    "pmavae.pretrained.manifest",
    "pmavae.training.config",
    "pmavae.training.phases",
    "pmavae.training.plugin",
    "pmavae.vmamba",
    "pmavae_cli.api",
    "pmavae_cli.commands.weights.listing",
    "pmavae_cli.main",
    "pmavae_cli.run.plan",
    "pmavae_cli.task_command",
]
# And each of these, whatever it is called: a command that is a file or a folder, and a built-in task.
TORCH_FREE_PATHS = re.compile(r"pmavae_cli/(commands/([^/]+|[^/]+/command)|plugins/[^/]+)\.py")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph(ROOT, "pmavae", "pmavae_cli")


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return read_rooms(PAGE.read_text("utf-8"))


def listed() -> set[tuple[str, str]]:
    return {(importer, name) for importer, names in EXCEPTIONS.items() for name in names}


def against_the_rules(graph: Graph, rooms: list[Room]) -> set[tuple[str, str]]:
    """The arrows that a rule forbids, whatever else there is."""
    plugins = {
        (importer, name)
        for importer, name in graph.arrows
        if importer.startswith("pmavae_cli.plugins")
        and name.startswith("pmavae_cli")
        and not name.startswith(("pmavae_cli.api", "pmavae_cli.plugins"))
    }
    upward = {
        (importer, name)
        for importer, name in graph.arrows
        if importer.split(".")[0] == "pmavae" and name.split(".")[0] == "pmavae_cli"
    }
    return forbidden(graph, rooms) | plugins | upward


def as_text(arrows: set[tuple[str, str]]) -> str:
    return "\n".join(f"{importer} -> {name}" for importer, name in sorted(arrows))


def test_rooms_import_only_what_the_table_says(graph: Graph, rooms: list[Room]) -> None:
    new = against_the_rules(graph, rooms) - listed()
    assert not new, f"forbidden by {PAGE.name}:\n{as_text(new)}"


def test_no_modules_import_each_other_in_a_circle(graph: Graph) -> None:
    """Late imports, and those for types alone, count: a circle cannot be read from any end."""
    assert circles(graph.arrows - listed()) == []


def test_no_exception_is_older_than_what_it_excuses(graph: Graph, rooms: list[Room]) -> None:
    closing = {arrow for arrow in graph.arrows & listed() if circles(graph.arrows - listed() | {arrow})}
    over = listed() - against_the_rules(graph, rooms) - closing
    assert not over, f"take these out of EXCEPTIONS, they are repaired:\n{as_text(over)}"


def test_the_library_knows_nothing_of_the_command_line(graph: Graph) -> None:
    library = [module for module in graph.paths if module.split(".")[0] == "pmavae"]
    assert len(library) > 50
    assert {module: found for module in library if (found := graph.others[module] & {"click", "rich"})} == {}


def test_modules_that_load_no_torch(graph: Graph) -> None:
    found = [module for module, path in graph.paths.items() if TORCH_FREE_PATHS.fullmatch(path)]
    assert len(found) > 12
    names = sorted({*TORCH_FREE, *found})
    assert [name for name in names if "torch" in graph.loaded_with(name)] == []
    code = f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\n"
    code += "sys.exit(sorted({'torch', 'numba', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_walks_below_the_table_name_files_that_are_there() -> None:
    below = PAGE.read_text("utf-8").rpartition("|\n")[2]
    named = re.findall(r"`((?:pmavae|pmavae_cli|tests)/[\w/.]*)`", below)
    assert len(named) > 30
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_the_table_has_every_place_once(rooms: list[Room]) -> None:
    assert len(rooms) > 20
    places = [place for room in rooms for place in room.paths]
    assert len(places) == len(set(places))
    assert all(place.endswith((".py", "/")) for place in places)
    known = {*places, "pmavae/", "pmavae_cli/"}
    assert {place for room in rooms for place in room.may_import} <= known


TABLE = """
| room | what is in it | may import |
| --- | --- | --- |
| `made/low.py` | numbers | – |
| `made/high/` | what is done with them | `made/low.py` |
| `made/high/apart.py`, `made/also.py` | a room in a room | `made/high/` |
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder of a package that keeps to its table."""
    files = {
        "__init__.py": "",
        "low.py": "import json\n",
        "free.py": "from . import low\n",
        "also.py": "def f():\n    from made.high import inner\n",
        "high/__init__.py": "",
        "high/inner.py": "from ..low import x\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import rich.text\n",
        "high/apart.py": "from made.high.inner import y\n"
        "try:\n    import numpy as np\nexcept ImportError:\n    pass\n",
    }
    for name, text in files.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_graph_of_a_made_package(made: Path) -> None:
    graph = read_graph(made, "made")
    assert graph.paths["made.high"] == "made/high/__init__.py"
    assert graph.arrows == {
        ("made.free", "made.low"),
        ("made.also", "made.high.inner"),
        ("made.high.inner", "made.low"),
        ("made.high.apart", "made.high.inner"),
    }
    assert graph.others["made.high.inner"] == {"typing", "torch", "rich"}
    assert graph.loaded_with("made.high.apart") == {"numpy", "rich", "typing", "json"}
    assert graph.loaded_with("made.also") == set()
    rooms = read_rooms(TABLE)
    assert [room.paths[0] for room in rooms] == ["made/low.py", "made/high/", "made/high/apart.py"]
    assert room_of("made/high/apart.py", rooms) is rooms[2] and room_of("made/free.py", rooms) is None
    assert forbidden(graph, rooms) == set() and circles(graph.arrows) == []


@pytest.mark.parametrize(
    ("path", "text", "arrow"),
    [
        ("low.py", "import made.high.inner\n", ("made.low", "made.high.inner")),
        ("low.py", "def f():\n    from .high import inner\n", ("made.low", "made.high.inner")),
        (
            "high/inner.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made.high.apart import z\n",
            ("made.high.inner", "made.high.apart"),
        ),
        ("also.py", "from made import low\n", ("made.also", "made.low")),
    ],
)
def test_a_forbidden_arrow_is_found(made: Path, path: str, text: str, arrow: tuple[str, str]) -> None:
    (made / "made" / path).write_text(text)
    assert forbidden(read_graph(made, "made"), read_rooms(TABLE)) == {arrow}


@pytest.mark.parametrize(
    "text", ["def f():\n    from made import free\n", "if TYPE_CHECKING:\n    from made.free import x\n"]
)
def test_a_circle_through_a_late_import_or_one_for_types_is_found(made: Path, text: str) -> None:
    (made / "made/low.py").write_text(text)
    assert circles(read_graph(made, "made").arrows) == [["made.free", "made.low"]]
    (made / "made/free.py").write_text("import made.also\n")
    (made / "made/also.py").write_text("import made.low\n")
    assert circles(read_graph(made, "made").arrows) == [["made.also", "made.free", "made.low"]]
