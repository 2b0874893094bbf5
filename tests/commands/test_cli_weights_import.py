"""`pmavae weights import`: runs and state dicts become weights files, and no code of theirs is run."""

from __future__ import annotations

import collections
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, picture
from torch import nn

from pmavae import PMAVAE, PRESETS
from pmavae.errors import WeightsError
from pmavae.network_configs import RESTORERS
from pmavae.pretrained.manifest import released_weights
from pmavae.pretrained.weights import load_weights
from pmavae.restoration.network import Restorer
from pmavae_cli.api import Batch, Training
from pmavae_cli.commands.weights.importing import Wanted, read_import

INDEX = released_weights()


def test_import_of_a_run_keeps_its_weights(pmavae: Command, weights: str, here: Path) -> None:
    result = pmavae("weights", "import", weights, "-o", "mine.safetensors", "--id", "mine-1")
    assert (result.status, result.lines) == (0, ["mine.safetensors"])
    before, after = load_weights(Path(weights) / "model.safetensors"), load_weights(here / "mine.safetensors")
    assert after.id == "mine-1" and after.config == before.config
    assert all((after.state[name] == tensor).all() for name, tensor in before.state.items())
    again = pmavae("weights", "import", weights, "-o", "mine.safetensors")
    assert again.status == 2 and "--overwrite" in again.err
    result = pmavae("weights", "import", weights, "-o", "mine.safetensors", "--overwrite", "--json")
    facts = json.loads(result.out)
    assert (facts["id"], facts["task"], facts["preset"]) == ("test-tiny", "base", "tiny")
    assert facts["sha256"] == hashlib.sha256((here / "mine.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, torch.Tensor]]:
    """State dicts in fp16 values, of a restorer and of an autoencoder."""
    torch.manual_seed(0)
    made = {"upscale": Restorer(RESTORERS["upscale", "tiny"]), "base": PMAVAE(PRESETS["tiny"])}
    return {task: model.half().state_dict() for task, model in made.items()}


def wrapped(state: dict[str, torch.Tensor], how: str) -> Any:
    other = {name: tensor + 1 for name, tensor in state.items()}
    match how:
        case "plain":
            return collections.OrderedDict(state)
        case "state_dict":
            return {"epoch": 3, "optimizer": {"lr": 1e-3}, "state_dict": state}
        case "module.":
            return {f"module.{name}": tensor for name, tensor in state.items()}
        case "ema":
            return {"model": other, "ema": {"module": {}, "params": state}, "step": 7}
        case "average":
            averaged = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
            return {"model": {"state_dict": {"n_averaged": torch.tensor(3), **averaged}}}
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["plain", "state_dict", "module.", "ema", "average"])
def test_import_finds_the_state_dict_and_its_network(
    pmavae: Command, states: dict[str, Any], here: Path, how: str
) -> None:
    torch.save(wrapped(states["upscale"], how), "run.pth")
    result = pmavae("weights", "import", "run.pth", "-o", "mine.safetensors")
    assert result.status == 0, result.err
    loaded = load_weights(here / "mine.safetensors")
    assert (loaded.id, loaded.config) == ("mine", RESTORERS["upscale", "tiny"])
    assert all((loaded.state[name] == tensor.float()).all() for name, tensor in states["upscale"].items())


def test_what_was_imported_works(pmavae: Command, states: dict[str, Any], here: Path) -> None:
    picture((32, 32)).save("a.png")
    torch.save(states["base"], "base.pt")
    assert pmavae("weights", "import", "base.pt", "-o", "model.safetensors", "--dtype", "float32").status == 0
    assert pmavae("encode", "a.png", "--weights", ".").status == 0
    assert pmavae("info", "a.safetensors", "--json").status == 0


def test_a_texture_prior_is_imported_for_an_autoencoder(pmavae: Command, here: Path) -> None:
    entry = INDEX.find("texture-tiny-1")
    assert entry
    released = load_weights(INDEX.path(entry))
    torch.save(released.state, "prior.pth")
    unknown = pmavae("weights", "import", "prior.pth", "-o", "mine.safetensors")
    assert unknown.status == 1 and "--task" in unknown.err
    for more in ([], ["--codec", "tiny-2"], ["--preset", "tiny"]):
        arguments = ["prior.pth", "-o", "mine.safetensors", "--task", "texture-vary", "--overwrite", *more]
        result = pmavae("weights", "import", *arguments)
        assert result.status == 0, result.err
        assert load_weights(here / "mine.safetensors").config == released.config
    assert pmavae("weights", "import", "prior.pth", "-o", "b.safetensors", "--codec", "tiny").status == 2


class Pair(nn.Module):
    """A plugin's network, which needs its values while it is made."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.paint = nn.Parameter(torch.ones(channels))
        self.most = float(self.paint.detach().max())


class PairTraining(Training):
    name, help, presets = "pair", "A training.", ("tiny", "small")

    def network_settings(self, preset: str) -> Mapping[str, Any]:
        return {"channels": {"tiny": 2, "small": 3}[preset]}

    def build_network(self, settings: Mapping[str, Any]) -> nn.Module:
        return Pair(**settings)

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        raise NotImplementedError


def test_a_network_of_a_plugin_is_imported_by_its_task(here: Path) -> None:
    torch.save({"paint": torch.tensor([1.0, 2.0, 3.0])}, "pair.pth")
    found = read_import(Path("pair.pth"), Wanted("pair"), INDEX, {"pair": PairTraining()})
    assert found.config.to_dict() == {"task": "pair", "preset": "small", "settings": {"channels": 3}}
    with pytest.raises(WeightsError, match="preset tiny of task pair"):
        read_import(Path("pair.pth"), Wanted("pair", "tiny"), INDEX, {"pair": PairTraining()})


@dataclass
class Harmful:
    """What a pickle runs where it is trusted."""

    file: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.file,)


def test_no_code_of_a_pickle_is_run(pmavae: Command, states: dict[str, Any], here: Path) -> None:
    torch.save({"state_dict": states["upscale"], "extra": Harmful("was-run")}, "bad.pth")
    result = pmavae("weights", "import", "bad.pth", "-o", "mine.safetensors")
    assert result.status == 1 and len(result.err.splitlines()) == 1
    assert "bad.pth" in result.err and "torch.save(model.state_dict()" in result.err
    assert not (here / "was-run").exists() and not (here / "mine.safetensors").exists()
    torch.load("bad.pth", weights_only=False)
    assert (here / "was-run").exists()  # it would have been


def test_what_cannot_be_imported_is_told_in_one_sentence(
    pmavae: Command, states: dict[str, Any], here: Path
) -> None:
    state = dict(states["upscale"])
    name, tensor = next(iter(state.items()))
    torch.save({**state, name: tensor[:1]}, "shape.pth")
    torch.save({**state, "odd.weight": tensor}, "odd.pth")
    torch.save({k: v for k, v in state.items() if k != name}, "less.pth")
    torch.save({**state, name: tensor * float("nan")}, "nan.pth")
    torch.save({"a": [1, 2]}, "none.pth")
    torch.save([tensor], "list.pth")
    torch.save({**state, name: tensor.to_sparse()}, "sparse.pth")
    torch.save({**state, name: tensor.to("meta")}, "meta.pth")
    torch.save(state, "good.pth")
    (here / "cut.pth").write_bytes((here / "good.pth").read_bytes()[:5000])
    (here / "text.pth").write_text("hello")
    (here / "empty.pth").touch()
    (here / "run" / "checkpoints").mkdir(parents=True)
    (here / "folder").mkdir()
    for arguments, words in (
        (["shape.pth"], [name, "instead of", "preset tiny of task upscale"]),
        (["odd.pth"], ["odd.weight is unknown"]),
        (["less.pth"], [f"no {name}"]),
        (["nan.pth"], [name, "not finite"]),
        (["sparse.pth"], [name, "no plain tensor"]),
        (["meta.pth"], [name, "no plain tensor"]),
        (["none.pth"], ["no state dict"]),
        (["list.pth"], ["no state dict"]),
        (["cut.pth"], ["cut.pth"]),
        (["text.pth"], ["text.pth"]),
        (["empty.pth"], ["empty.pth"]),
        (["gone.pth"], ["gone.pth", "not there"]),
        (["run"], ["model.safetensors yet"]),
        (["folder"], ["model.safetensors"]),
        (["good.pth", "--task", "denoise"], ["of task denoise"]),
        (["good.pth", "--preset", "huge"], ["preset huge"]),
        (["good.pth", "--id", "a\nb"], ["is no id"]),
    ):
        result = pmavae("weights", "import", *arguments, "-o", "mine.safetensors")
        assert result.status == 1 and len(result.err.splitlines()) == 1, (arguments, result.err)
        for word in [arguments[0] if arguments[0] != "good.pth" else "", *words]:
            assert word in result.err, (arguments, result.err)
        assert not (here / "mine.safetensors").exists()
    for output in ("mine.pth", "no/mine.safetensors"):
        assert pmavae("weights", "import", "good.pth", "-o", output).status == 2
