"""What a plugin brings beside tasks: weights, trainings, commands; its version of the API; its cache."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
from conftest import Command, picture
from safetensors.torch import load_file, save_file
from torch import nn

from pmavae_cli.api import API_VERSION, Batch, Phase, Task, Training, hookimpl
from pmavae_cli.plugin_manager import Plugin, Registry, load_plugins
from pmavae_cli.run.runner import cache_folder

TRAIN = ("--device=cpu", "--threads=1", "--log-every=1", "--set=precision=fp32")


class Gain(nn.Module):
    """A network with as little as a network can have, and a buffer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.paint = nn.Parameter(torch.ones(channels))  # a word that means something in the autoencoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 + 0.2 * self.norm(x) * self.paint[:, None, None]


class GainTask(Task):
    name = "gain"
    help = "A task."
    input_kind = "pixels"
    weights = "gain"

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        return Gain(**settings)

    def transform(self, content: Any, context: Any, *args: Any, **options: Any) -> Any:
        from pmavae.autoencoder import to_tensor
        from pmavae.images.pixels import to_pixels

        assert not context.task_model.training and context.device.type == "cpu"
        return to_pixels(context.task_model(to_tensor(content))[0].clamp(0, 1))


class GainTraining(Training):
    name = "gain"
    help = "A training."
    phases = (Phase("all", 1.0, crop=32, batch=2, learning_rate=1e-2),)
    calls: Callable[[], None] = staticmethod(lambda: None)

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        return {"channels": 3}

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        return Gain(**settings)

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        type(self).calls()
        noisy = batch.pictures + 0.1 * batch.draws.normal(batch.pictures)
        return {"loss": (network(noisy) - batch.pictures).abs().mean(), "spread": noisy.std()}


def made(version: Any = None, **hooks: Any) -> ModuleType:
    """A plugin whose hooks return these."""
    module = ModuleType("made")
    for name, value in hooks.items():
        setattr(module, name, hookimpl(lambda value=value: value))
    if version is not None:
        module.PMAVAE_API = version  # type: ignore[attr-defined]
    return module


def like(kind: type, **changes: Any) -> Any:
    """One of this kind, with other attributes."""
    return type("Made", (kind,), changes)()


def added(registry: Registry, name: str, version: Any = None, **hooks: Any) -> Plugin:
    plugin = Plugin(name, "1", f"dist-{name}")
    registry.add(plugin, lambda: made(version, **hooks))
    return plugin


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """What the command line finds: pmavae's own plugins, and what a test adds."""
    found = load_plugins({})
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: found)
    monkeypatch.setattr("pmavae_cli.main.find_plugins", lambda: found)
    return found


def manifest(folder: Path, file: Path, **fields: Any) -> Path:
    """A manifest for a weights file that lies beside it."""
    row = {
        "id": "mine-1",
        "file": file.name,
        "preset": "tiny",
        "task": "gain",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "parameters": 9,
        "repo": None,
        "revision": None,
        "licence": "MIT",
        "data": "none",
        "recipe": {},
        "scores": {},
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps({"version": 1, "weights": [row | fields]}))
    return path


def gain_weights(folder: Path, **settings: Any) -> Path:
    """A weights file of the task gain."""
    from pmavae.network_configs import NetworkConfig
    from pmavae.pretrained.weights import save_folder

    config = NetworkConfig("tiny", "gain", {"channels": 3, **settings})
    return save_folder(folder, Gain(3).state_dict(), config, "gain-test")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (2, "version 2 of the task API, and this pmavae has version 1: update pmavae"),
        (0, "version 0 of the task API, and this pmavae has version 1 and supports 1 or newer: update"),
        ("1", "PMAVAE_API is '1': it should be a whole number"),
    ],
)
def test_a_plugin_for_another_version_is_broken_and_says_both(version: Any, reason: str) -> None:
    registry = load_plugins({})
    # A hook of a later version is no reason of its own.
    plugin = added(registry, "later", version, register_tasks=[GainTask()], register_dreams=[])
    assert (plugin.state, plugin.tasks) == ("broken", [])
    assert len(plugin.errors) == 1 and reason in plugin.errors[0]
    assert added(registry, "now", API_VERSION, register_tasks=[GainTask()]).state == "ok"


def test_what_a_plugin_brings_is_listed(pmavae: Command, registry: Registry, here: Path) -> None:
    file = gain_weights(here)
    added(
        registry,
        "gain",
        1,
        register_tasks=[GainTask()],
        register_weights=[manifest(here, file)],
        register_trainings=[GainTraining()],
        register_commands=[click.Command("hello", help="Say so.", callback=lambda: click.echo("hello"))],
    )
    row = json.loads(pmavae("plugins", "--json").lines[-1])
    brought = {key: row[key] for key in ("api", "tasks", "weights", "trainings", "commands", "state")}
    assert brought == {
        "api": 1,
        "tasks": ["gain"],
        "weights": ["mine-1"],
        "trainings": ["gain"],
        "commands": ["hello"],
        "state": "ok",
    }
    assert "weights mine-1, training gain, command hello" in pmavae("plugins").lines[-1]
    text = pmavae("--help").out.decode()
    assert text.index("  gain ") < text.index("Commands:") < text.index("  hello ")
    assert pmavae("hello").lines == ["hello"]
    assert "texture-vary|gain]" in "".join(pmavae("train", "--help").out.decode().split())


def test_one_hook_that_fails_leaves_the_others(registry: Registry) -> None:
    plugin = added(registry, "half", register_tasks=None, register_commands=[click.Command("hi", help="Hi.")])
    assert (plugin.commands, plugin.state, len(plugin.errors)) == (["hi"], "broken", 1)
    assert plugin.complaints[0].startswith("plugin half (dist-half 1) is broken in part: TypeError")


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        (
            {"register_tasks": [like(GainTask, build_network=Task.build_network)]},
            "no build_network",
        ),
        ({"register_tasks": [like(GainTask, weights="A b")]}, "has weights 'A b'"),
        ({"register_weights": [3]}, "returned 3, which is not the path of a manifest"),
        ({"register_weights": ["nowhere/manifest.json"]}, "nowhere/manifest.json cannot be read"),
        ({"register_trainings": [GainTask()]}, "which is not a Training"),
        ({"register_trainings": [like(GainTraining, name="base")]}, "of a training of pmavae"),
        ({"register_trainings": [like(GainTraining, phases=())]}, "no phases"),
        ({"register_trainings": [like(GainTraining, phases=[{}])]}, "no phases that are each a Phase"),
        ({"register_trainings": [like(GainTraining, presets=["huge"])]}, "use some of tiny, small, base"),
        ({"register_commands": [print]}, "which is not a click command"),
        ({"register_commands": [click.Command("train", help="x")]}, "the name of a command of pmavae"),
        ({"register_commands": [click.Command("A", help="x")]}, "no name of lower-case words"),
        ({"register_commands": [click.Command("quiet")]}, "command quiet has no help"),
        (
            {"register_commands": [click.Command("decode", help="x")]},
            "already the task of plugin decode",
        ),
    ],
)
def test_what_cannot_be_offered_is_refused(registry: Registry, hooks: dict[str, Any], reason: str) -> None:
    plugin = added(registry, "wrong", **hooks)
    assert len(plugin.errors) == 1 and reason in plugin.errors[0]
    assert not any(plugin.brings.values())


def test_of_two_of_one_name_the_first_stays_and_both_are_named(registry: Registry, here: Path) -> None:
    hooks: dict[str, Any] = {
        "register_weights": [manifest(here, gain_weights(here))],
        "register_trainings": [GainTraining()],
        "register_commands": [click.Command("hello", help="Say so.")],
    }
    assert added(registry, "first", **hooks).state == "ok"
    second = added(registry, "second", **hooks, register_tasks=[like(GainTask, name="hello")])
    assert second.errors == [
        "task hello is already the command of plugin first (dist-first), which keeps it unless "
        "PMAVAE_PLUGINS=-first leaves that out",
        "weights mine-1 of plugin second (dist-second) have the id of weights of plugin first (dist-first), "
        "which keep it",
        *(
            f"{kind} is already that of plugin first (dist-first), which keeps it unless "
            "PMAVAE_PLUGINS=-first leaves that out"
            for kind in ("training gain", "command hello")
        ),
    ]
    own = added(registry, "own", register_weights=[manifest(here, here / "model.safetensors", id="tiny-2")])
    assert "weights tiny-2 of plugin own (dist-own) have the id of weights of pmavae" in own.errors[0]


def test_weights_of_a_plugin_have_names_everywhere(
    pmavae: Command, registry: Registry, weights: str, here: Path
) -> None:
    """Those of its own task, and an autoencoder."""
    picture().save("a.png")
    gain, base = here / "gain", here / "base"
    own = gain_weights(gain)
    base.mkdir()
    (base / "model.safetensors").write_bytes((Path(weights) / "model.safetensors").read_bytes())
    added(
        registry,
        "gain",
        register_tasks=[GainTask()],
        register_weights=[
            manifest(gain, own),
            manifest(base, base / "model.safetensors", id="auto-1", task="base"),
        ],
    )
    by_preset = pmavae("gain", "a.png", "-o", "one.png", "-v")
    assert by_preset.status == 0 and "weights gain-test on cpu" in by_preset.err
    assert pmavae("gain", "a.png", "-o", "two.png", "--weights", "mine-1").status == 0
    assert pmavae("gain", "a.png", "-o", "three.png", "--weights", own).status == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes() == Path("three.png").read_bytes()
    assert "weights test-tiny" in pmavae("decode", "a.png", "-o", "d.png", "--weights", "auto-1", "-v").err
    assert pmavae("encode", "a.png", "--weights", "auto-1").status == 0
    assert pmavae("compare", "a.png", "a.safetensors", "--weights", "auto-1").status == 0
    one = ("--weights", "auto-1", "--peers", "none", "--perceptual", "none", "--device", "cpu", "-q")
    (here / "photos").mkdir()
    picture((128, 128)).save(here / "photos/1.png")
    assert "test-tiny" in pmavae("bench", "photos", *one).out.decode()
    plan = ("--out", "run", "--steps", 1, "--dry-run", "--perceptual", "none", *TRAIN)
    started = pmavae("train", "--data", "photos", "--init-from", "auto-1", *plan)
    assert started.status == 0 and "auto-1" in started.out.decode()
    facts = json.loads(pmavae("info", own, "--json").lines[0])
    assert (facts["task"], facts["released"]) == ("gain", True)
    assert facts["config"] == {"settings": {"channels": 3}}
    assert "auto-1, mine-1" not in (unknown := pmavae("decode", "a.png", "--weights", "none").err)
    assert "mine-1, auto-1)" in unknown
    other = pmavae("gain", "a.png", "-o", "x.png", "--weights", "auto-1")
    assert other.status == 1 and "has weights of the task base, not gain" in other.err
    assert len(other.err.splitlines()) == 1
    own.write_bytes(own.read_bytes()[:-1] + b"\0")
    changed = pmavae("gain", "a.png", "-o", "x.png")
    assert changed.status == 1 and "is damaged or was changed" in changed.err
    own.unlink()
    gone = pmavae("gain", "a.png", "-o", "x.png")
    assert gone.status == 1 and "install plugin gain (dist-gain) again" in gone.err


def test_settings_and_tensors_that_do_not_fit_are_refused(
    pmavae: Command, registry: Registry, here: Path
) -> None:
    picture().save("a.png")
    added(registry, "gain", register_tasks=[GainTask()])
    none = pmavae("gain", "a.png")
    assert (none.status, none.err) == (
        1,
        "pmavae: no weights for gain are installed: give some with --weights, as pmavae train --task gain "
        "makes them\n",
    )
    file = gain_weights(here / "run")
    tensors = load_file(file)
    for settings, reason in (
        ({"channels": 10**9}, "its configuration has settings"),
        ({"channels": 3, "os": {"system": "x"}}, "its configuration has settings"),
        ({"channels": 3, "more": 1}, "from which task gain makes no network (TypeError"),
        ({"channels": 4}, "does not fit preset tiny"),
    ):
        config = {"task": "gain", "preset": "tiny", "settings": settings}
        header = {"format": "weights", "architecture": 1, "config": config, "id": "x"}
        save_file(tensors, file, {"pmavae": json.dumps(header)})
        result = pmavae("gain", "a.png", "--weights", file)
        assert (result.status, len(result.err.splitlines())) == (1, 1)
        assert reason in result.err


@pytest.fixture
def photos(here: Path) -> Path:
    (here / "photos").mkdir()
    for seed in range(4):
        picture((96, 80), seed).save(here / "photos" / f"{seed}.png")
    return here / "photos"


def test_a_training_that_is_interrupted_goes_on_to_the_same_weights(
    pmavae: Command, registry: Registry, photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(registry, "gain", register_tasks=[GainTask()], register_trainings=[GainTraining()])
    command = ("train", "--task", "gain", "--data", photos, "--steps", 5, *TRAIN)
    assert pmavae(*command, "--out", "straight/run").status == 0
    count = iter(range(100))
    monkeypatch.setattr(
        GainTraining,
        "calls",
        staticmethod(lambda: os.kill(os.getpid(), signal.SIGINT) if next(count) == 1 else None),
    )
    stopped = pmavae(*command, "--out", "halves/run")
    assert stopped.status == 130 and "interrupted and saved" in stopped.err
    result = pmavae(*command, "--out", "halves/run")
    assert result.status == 0 and "continuing halves/run/checkpoints/step-00000003" in result.err
    one, two = (Path(run, "run/model.safetensors").read_bytes() for run in ("straight", "halves"))
    assert one == two
    log = Path("halves/run/log.csv").read_text()
    assert "spread" in log.splitlines()[0] and log.count("\nvalidation,") == 2
    assert not list(here.glob("*/run/previews/*")) and not list(here.glob("*/run/contact-sheet.png"))
    trained = load_file("straight/run/model.safetensors")
    assert set(trained) == set(Gain(3).state_dict())
    assert trained["norm.num_batches_tracked"] == 5 and (trained["paint"] != 1).any()

    picture().save("a.png")
    assert pmavae("gain", "a.png", "-o", "out.png", "--weights", "straight/run").status == 0
    more = pmavae(*command, "--out", "more", "--init-from", "straight/run", "--dry-run")
    assert more.status == 0 and "plugin" in more.out.decode() and not Path("more").exists()


def test_a_training_that_cannot_be_is_one_sentence(
    pmavae: Command, registry: Registry, photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(registry, "gain", register_trainings=[GainTraining()])
    Path("other.toml").write_text('task = "dream"\n')
    Path("list.toml").write_text("task = []\n")
    lists = like(GainTraining, name="lists", loss=lambda self, network, batch: [1.0])
    odd = like(GainTraining, name="odd", network_settings=lambda self, preset: {"x": 10**6})
    added(registry, "odd", register_trainings=[odd, lists])
    for arguments, reason in (
        (("--config", "other.toml"), "there is no training for task 'dream': use one of base, denoise"),
        (("--config", "list.toml"), "there is no training for task []: use one of"),
        (("--task", "gain", "--preset", "small"), "training gain has no preset small: use --preset tiny"),
        (("--task", "odd"), "training odd has settings that no weights file can hold"),
        (("--task", "lists"), 'training lists returned no scalar tensor "loss": repair its method loss'),
    ):
        result = pmavae("train", "--data", photos, "--steps", 1, "--out", "run", *TRAIN, "-q", *arguments)
        assert (result.status, len(result.err.splitlines())) == (1, 1), result.err
        assert reason in result.err
    assert pmavae("train", "--task", "dream", "--data", photos).status == 2


class Remember(Task):
    name = "remember"
    help = "Keep something in the cache."

    def transform(self, content: Any, context: Any, *args: Any, **options: Any) -> Any:
        kept = context.cache / "kept"
        context.log("again" if kept.exists() else "first")
        kept.write_text("x")
        return content


def test_a_plugin_has_a_cache_folder_of_its_own(
    pmavae: Command, registry: Registry, weights: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(registry, "Mind_Map", register_tasks=[Remember()])
    picture().save("a.png")
    monkeypatch.setenv("PMAVAE_CACHE", str(here / "cache"))
    assert pmavae("decode", "a.png", "-o", "d.png", "--weights", weights).status == 0
    assert not Path("cache").exists()
    command = ("remember", "a.png", "-o", "out.png", "--overwrite", "--weights", weights)
    assert pmavae(*command).err == "pmavae: first\n"
    assert pmavae(*command).err == "pmavae: again\n"
    assert [str(path.relative_to(here)) for path in here.rglob("kept")] == ["cache/plugins/mind-map/kept"]
    monkeypatch.setenv("PMAVAE_CACHE", str(here / "a.png"))
    result = pmavae(*command)
    assert (result.status, result.err) == (
        1,
        f"pmavae: a.png: the cache folder {here}/a.png/plugins/mind-map cannot be used (Not a directory): "
        "set PMAVAE_CACHE to a folder that can be written\n",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the variable is one of Linux")
def test_the_cache_is_where_the_user_has_caches(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    assert cache_folder("../odd", {}) == here / "pmavae/plugins/odd"
    assert cache_folder("odd", {"PMAVAE_CACHE": ""}).is_dir()
