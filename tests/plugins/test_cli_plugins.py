"""Plugins of other people: sound, broken, and in each other's way."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
from conftest import Command, picture

from pmavae_cli.api import PICTURE, Task, hookimpl
from pmavae_cli.plugin_manager import Plugin, PluginError, Registry, find_plugins, load_plugins

POSTERIZE = Path(__file__).parents[2] / "examples/plugin-posterize/src/pmavae_posterize/__init__.py"


def fake_distribution(folder: Path, name: str, code: str) -> None:
    """An installed distribution with one plugin module."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[pmavae.plugins]\n{name} = {name}\n")


BROKEN = {
    "cannot_import": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "exits": ("raise SystemExit('bye')", "SystemExit: bye"),
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "misspelt": (
        "from pmavae_cli.api import hookimpl\n@hookimpl\ndef register_task(): return []",
        "unknown hook 'register_task': pmavae calls register_tasks, register_weights",
    ),
    "without_hook": ("x = 1", "it implements no hook"),
    "hook_raises": (
        "from pmavae_cli.api import hookimpl\n@hookimpl\ndef register_tasks(): raise KeyError('x')",
        "KeyError: 'x'",
    ),
    "no_list": (
        "from pmavae_cli.api import hookimpl\n@hookimpl\ndef register_tasks(): return None",
        "TypeError: 'NoneType' object is not iterable",
    ),
    "no_params": (
        "from pmavae_cli.api import Task, hookimpl\nclass T(Task):\n"
        "    name, help, params = 'odd', 'Odd.', None\n"
        "    def transform(self, latents, context): return latents\n"
        "@hookimpl\ndef register_tasks(): return [T()]",
        "TypeError: 'NoneType' object is not iterable",
    ),
}


def test_broken_plugins_are_reported_and_skipped_one_by_one(
    pmavae: Command, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = here / "site"
    site.mkdir()
    for name, (code, _) in BROKEN.items():
        fake_distribution(site, name, code)
    fake_distribution(site, "zz_sound", POSTERIZE.read_text())
    monkeypatch.syspath_prepend(site)
    picture().save("a.png")
    result = pmavae("posterize", "a.png", "-o", "out.png", "--weights", weights, "-q")
    assert (result.status, result.lines) == (0, ["out.png"])
    reports = result.err.splitlines()
    assert len(reports) == len(BROKEN)
    for report, name in zip(reports, sorted(BROKEN), strict=True):
        assert report.startswith(f"pmavae: plugin {name} ({name} 1.2) is broken and skipped: ")
        assert BROKEN[name][1] in report
        assert report.endswith(f"repair it, or leave it out with PMAVAE_PLUGINS=-{name}")
    listed = pmavae("plugins")
    assert (listed.status, listed.err) == (0, "")
    assert "broken: ZeroDivisionError: division by zero" in listed.out.decode()
    traced = pmavae("plugins", "--debug")
    assert traced.out == listed.out
    assert f'File "{site}/raises.py", line 1' in traced.err
    rows = {row["name"]: row for row in map(json.loads, pmavae("plugins", "--json").lines)}
    for name in BROKEN:
        assert (rows[name]["state"], rows[name]["tasks"]) == ("broken", [])
        assert BROKEN[name][1] in rows[name]["error"]


@pytest.fixture
def three(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plugins that tell when they are imported, and one that is broken."""
    sound = (
        "import sys\nfrom pmavae_cli.api import Task, hookimpl\n"
        "print('imported', __name__, file=sys.stderr)\n"
        "class T(Task):\n    name, help = __name__.replace('_', '-'), 'A task.'\n"
        "    def transform(self, latents, context): return latents\n"
        "@hookimpl\ndef register_tasks(): return [T()]\n"
    )
    fake_distribution(here, "one_more", sound)
    fake_distribution(here, "other", sound)
    fake_distribution(here, "raises", "1 / 0")
    monkeypatch.syspath_prepend(here)
    for name in ("one_more", "other", "raises"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        (None, {"one_more", "other", "raises"}),
        ("", set()),
        (" , ", set()),
        ("other", {"other"}),
        ("one-more, OTHER", {"one_more", "other"}),
        ("-raises", {"one_more", "other"}),
        ("-raises,-one_more", {"other"}),
        ("other,one_more,-other", {"one_more"}),
    ],
)
@pytest.mark.usefixtures("three")
def test_a_variable_selects_plugins(
    pmavae: Command, monkeypatch: pytest.MonkeyPatch, value: str | None, loaded: set[str]
) -> None:
    monkeypatch.delenv("PMAVAE_PLUGINS", raising=False)
    if value is not None:
        monkeypatch.setenv("PMAVAE_PLUGINS", value)
    result = pmavae("plugins", "--json")
    rows = {row["name"]: row for row in map(json.loads, result.lines)}
    for name in ("one_more", "other", "raises"):
        state = "disabled" if name not in loaded else "broken" if name == "raises" else "ok"
        assert rows[name]["state"] == state
        assert bool(rows[name]["tasks"]) == (state == "ok")
    # What is left out is not imported either, so that it costs nothing and harms nobody.
    assert {line.split()[1] for line in result.err.splitlines()} == loaded - {"raises"}
    assert rows["decode"]["state"] == "ok"


@pytest.mark.usefixtures("three")
def test_a_built_in_plugin_can_be_left_out_and_a_wrong_name_is_said(
    pmavae: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMAVAE_PLUGINS", "-style-mix,-raises,-raisins")
    result = pmavae("--help")
    assert result.status == 0
    assert "style-mix" not in result.out.decode()
    assert result.err.splitlines()[-1] == (
        "pmavae: PMAVAE_PLUGINS names 'raisins', and no plugin has that name: "
        "pmavae plugins lists those there are"
    )


@pytest.mark.usefixtures("three")
def test_a_strict_run_ends_at_a_broken_plugin(pmavae: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMAVAE_PLUGINS_STRICT", "1")
    result = pmavae("decode", "gone.png")
    assert (result.status, result.out) == (1, b"")
    assert result.err.splitlines()[-1] == (
        "pmavae: plugin raises (raises 1.2) is broken and skipped: ZeroDivisionError: division by zero; "
        "repair it, or leave it out with PMAVAE_PLUGINS=-raises"
    )
    with pytest.raises(PluginError, match="division by zero"):
        load_plugins()
    assert pmavae("plugins").status == 1
    monkeypatch.setenv("PMAVAE_PLUGINS", "-raises")
    assert pmavae("--help").status == 0
    assert pmavae("plugins", "--strict").status == 0
    monkeypatch.setenv("PMAVAE_PLUGINS_STRICT", "0")
    monkeypatch.delenv("PMAVAE_PLUGINS")
    assert pmavae("--help").status == 0
    assert pmavae("plugins").status == 0
    strict = pmavae("plugins", "--strict")
    assert (strict.status, "division by zero" in strict.out.decode()) == (1, True)


@pytest.mark.usefixtures("three")
def test_two_plugins_of_one_name_are_both_loaded(pmavae: Command, here: Path) -> None:
    (here / "twin.py").write_text((here / "other.py").read_text())
    info = here / "twin-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: twin\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[pmavae.plugins]\nother = twin\n")
    rows = [row for row in map(json.loads, pmavae("plugins", "--json").lines) if row["name"] == "other"]
    assert [(row["origin"], row["version"], row["tasks"]) for row in rows] == [
        ("other", "1.2", ["other"]),
        ("twin", "2.0", ["twin"]),
    ]


@pytest.mark.usefixtures("three")
def test_on_a_terminal_the_table_has_colours_and_elsewhere_a_line_a_plugin(
    pmavae: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = pmavae("plugins").lines
    registry = find_plugins()
    assert len(lines) == 1 + len(registry.plugins)
    assert lines[0].split() == ["plugin", "version", "origin", "tasks", "also", "state"]
    assert "\x1b" not in "".join(lines)
    screen = plugins_on_a_terminal(os.environ)
    assert "\x1b[" in screen and "raises: raises" in screen
    assert "\x1b[3" not in plugins_on_a_terminal({**os.environ, "NO_COLOR": "1"})


def plugins_on_a_terminal(env: Mapping[str, str]) -> str:
    """What `pmavae plugins` shows."""
    screen, stdout = pty.openpty()
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-m", "pmavae_cli", "plugins"],
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env={**env, "PYTHONPATH": path, "COLUMNS": "200", "TERM": "xterm"},
        check=True,
    )
    os.close(stdout)
    shown = os.read(screen, 65536).decode()
    os.close(screen)
    return shown


def test_a_shell_that_completes_is_not_disturbed(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_distribution(here, "raises", "1 / 0")
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("_PMAVAE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "pmavae sty")
    monkeypatch.setenv("COMP_CWORD", "1")
    from pmavae_cli.main import main

    with pytest.raises(SystemExit):
        main([])


class Sound(Task):
    name = "sound"
    help = "A task."

    def transform(self, latents: Any, context: Any, *args: Any, **options: Any) -> Any:
        return latents


def module(*tasks: Any) -> ModuleType:
    """A plugin that registers these."""
    made = ModuleType("made")
    made.register_tasks = hookimpl(lambda: list(tasks))  # type: ignore[attr-defined]
    return made


def task(**attributes: Any) -> Task:
    made: Task = type("Made", (Sound,), attributes)()
    return made


def added(registry: Registry, name: str, *tasks: Any) -> Plugin:
    plugin = Plugin(name, "1", f"dist-{name}")
    registry.add(plugin, lambda: module(*tasks))
    return plugin


def test_of_two_tasks_with_one_name_the_first_stays_and_both_are_named() -> None:
    registry = load_plugins()
    built_in = registry.tasks["decode"]
    first = added(registry, "first", task(name="decode"), task(name="mine"))
    second = added(registry, "second", task(name="mine"))
    assert registry.tasks["decode"] is built_in
    assert first.tasks == ["mine"]
    assert first.state == second.state == "broken"
    assert first.errors == [
        "task decode is already that of plugin decode (built-in), which keeps it unless "
        "PMAVAE_PLUGINS=-decode leaves that out"
    ]
    (complaint,) = second.complaints
    assert "plugin second (dist-second 1)" in complaint
    assert "task mine is already that of plugin first (dist-first), which keeps it" in complaint
    assert first.complaints[0].startswith("plugin first (dist-first 1) is broken in part: ")


def test_a_task_may_have_an_option_called_weights(
    pmavae: Command, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the model are then --model-weights, which is another name for them in every task."""
    seen = []

    class Weigh(Sound):
        name = "weigh"
        params = (click.Option(["--weights", "numbers"], help="Numbers."),)

        def transform(self, latents: Any, context: Any, *args: Any, **options: Any) -> Any:
            seen.append((options, context.model))
            return latents

    registry = load_plugins()
    assert added(registry, "weigh", Weigh()).errors == []
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    picture().save("a.png")
    result = pmavae("weigh", "a.png", "--weights", "1,2", "--model-weights", weights, "-v")
    assert result.status == 0
    assert "weights test-tiny" in result.err
    assert seen[0][0] == {"numbers": "1,2"}
    shown = pmavae("weigh", "--help").out.decode()
    assert shown.count("  --weights") == 1 and "  --model-weights" in shown
    assert pmavae("decode", "a.png", "--model-weights", weights).status == 0


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Sound, "is not a Task"),
        (task(name="Bad Name"), "has the name 'Bad Name'"),
        (task(name=None), "has the name None"),
        (task(help=""), "has no help line"),
        (task(name="plugins"), "has the name of a command of pmavae"),
        (task(params=["--x"]), "not click parameters"),
        (task(params=[click.Option(["--seed"])]), "parameter --seed, which every task has"),
        (task(params=[click.Option(["--other", "-o"])]), "parameter -o, which every task has"),
        (task(params=[click.Option(["--weights"])]), "parameter weights, which every task has"),
        (task(params=[click.Argument(["inputs"])]), "parameter inputs, which every task has"),
    ],
)
def test_a_task_that_cannot_be_offered_is_refused(wrong: Any, reason: str) -> None:
    registry = load_plugins()
    plugin = added(registry, "wrong", wrong, task(name="right"))
    assert plugin.tasks == ["right"]
    assert len(plugin.errors) == 1
    assert reason in plugin.errors[0]


def test_pictures_as_options(
    pmavae: Command, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parameter of type PICTURE may be optional and may be given several times."""
    seen = []

    class Blend(Sound):
        name = "blend"
        params = (
            click.Option(["--with", "others"], type=PICTURE, multiple=True),
            click.Option(["--mask"], type=PICTURE),
        )

        def transform(self, latents: Any, context: Any, *args: Any, **options: Any) -> Any:
            seen.append(options)
            return latents

    registry = load_plugins()
    added(registry, "blend", Blend())
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    for name in ("a", "b", "c"):
        picture(seed=ord(name)).save(f"{name}.png")
    result = pmavae("blend", "a.png", "--with", "b.png", "--with", "c.png", "--weights", weights)
    assert result.status == 0, result.err
    assert seen[0]["mask"] is None
    assert [z.width for z in seen[0]["others"]] == [48, 48]
    assert pmavae("blend", "a.png", "--mask", "gone.png", "--overwrite").status == 1
    folder = pmavae("blend", "a.png", "--mask", ".", "--overwrite")
    assert (folder.status, folder.err) == (
        1,
        "pmavae: . is a folder: --mask must be one picture or latent file\n",
    )


def test_a_plugin_has_the_pixels_and_a_network_that_compares_them(
    pmavae: Command, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Look(Sound):
        name = "look"

        def transform(self, latents: Any, context: Any, *args: Any, **options: Any) -> Any:
            from pmavae.autoencoder import to_tensor

            seen.append((context.pixels, context.features))
            if context.pixels is not None:
                maps = context.features(to_tensor(context.pixels))
                context.progress(1, 2, "compared")
                context.log(f"{len(maps)} maps, the last of {maps[-1].shape[1]} channels")
            return latents

    registry = load_plugins()
    added(registry, "look", Look())
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    image = picture()
    image.save("a.png")
    assert pmavae("encode", "a.png", "-o", "b.safetensors", "--weights", weights).status == 0
    result = pmavae("look", "a.png", "b.safetensors", "-o", "out/", "--weights", weights)
    assert (result.status, result.err) == (0, "pmavae: 6 maps, the last of 112 channels\n")
    (pixels, network), (none, again) = seen
    assert np.array_equal(pixels, np.asarray(image)) and none is None
    assert network is again and not any(parameter.requires_grad for parameter in network.parameters())
