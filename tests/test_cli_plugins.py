"""Plugins of other people: sound, broken, and in each other's way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
from conftest import Command, picture

from pmavae_cli.api import PICTURE, Task, hookimpl
from pmavae_cli.plugin_manager import Plugin, Registry, load_plugins

EXAMPLE = Path(__file__).parent / "plugin_example"
DOCS = Path(__file__).parent.parent / "docs"


def test_a_plugin_installed_by_pip_adds_a_working_task(installed: Command, weights: str, here: Path) -> None:
    source = shutil.copytree(EXAMPLE, here / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", here / "site", source],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = os.pathsep.join([str(here / "site"), *sys.path])
    env = {**os.environ, "PYTHONPATH": path}
    picture().save("a.png")
    result = installed("posterize", "a.png", "--step", "2", "-o", "out.png", "--weights", weights, env=env)
    assert (result.status, result.lines) == (0, ["out.png"])
    assert result.err == "pmavae: rounding to multiples of 2.0\n"
    listed = installed("plugins", "--json", env=env)
    row = next(row for row in map(json.loads, listed.lines) if row["name"] == "posterize")
    assert (row["version"], row["origin"]) == ("0.3.0", "pmavae-posterize")
    assert (row["tasks"], row["errors"]) == (["posterize"], [])


def test_the_example_is_short_and_stands_in_the_docs() -> None:
    code = (EXAMPLE / "pmavae_posterize.py").read_text()
    assert len(code.splitlines()) < 25
    docs = (DOCS / "plugins.md").read_text()
    assert f"```python\n{code}```" in docs
    assert f"```toml\n{(EXAMPLE / 'pyproject.toml').read_text()}```" in docs


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
        "unknown hook 'register_task'",
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
    fake_distribution(site, "zz_sound", (EXAMPLE / "pmavae_posterize.py").read_text())
    monkeypatch.syspath_prepend(site)
    picture().save("a.png")
    result = pmavae("posterize", "a.png", "-o", "out.png", "--weights", weights, "-q")
    assert (result.status, result.lines) == (0, ["out.png"])
    reports = result.err.splitlines()
    assert len(reports) == len(BROKEN)
    for report, name in zip(reports, sorted(BROKEN), strict=True):
        assert report.startswith(f"pmavae: plugin {name} ({name} 1.2) is broken and skipped: ")
        assert BROKEN[name][1] in report
    listed = pmavae("plugins")
    assert (listed.status, listed.err) == (0, "")
    assert "division by zero" in listed.out.decode()


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
    assert first.errors == ["task decode is already that of plugin decode (built-in), which keeps it"]
    assert second.errors == ["task mine is already that of plugin first (dist-first), which keeps it"]


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

    class Compare(Sound):
        name = "compare"

        def transform(self, latents: Any, context: Any, *args: Any, **options: Any) -> Any:
            from pmavae.autoencoder import to_tensor

            seen.append((context.pixels, context.features))
            if context.pixels is not None:
                maps = context.features(to_tensor(context.pixels))
                context.progress(1, 2, "compared")
                context.log(f"{len(maps)} maps, the last of {maps[-1].shape[1]} channels")
            return latents

    registry = load_plugins()
    added(registry, "compare", Compare())
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    image = picture()
    image.save("a.png")
    assert pmavae("encode", "a.png", "-o", "b.safetensors", "--weights", weights).status == 0
    result = pmavae("compare", "a.png", "b.safetensors", "-o", "out/", "--weights", weights)
    assert (result.status, result.err) == (0, "pmavae: 6 maps, the last of 112 channels\n")
    (pixels, network), (none, again) = seen
    assert np.array_equal(pixels, np.asarray(image)) and none is None
    assert network is again and not any(parameter.requires_grad for parameter in network.parameters())
