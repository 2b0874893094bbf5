"""Released checkpoints: their names and shapes, under three schemes, become a VMamba and a weights file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from released_vmamba import (
    ReleasedForward,
    Shapes,
    random_state,
    small_vanilla_shapes,
    tiny_shapes,
)
from torch import Tensor

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.pretrained.weights import save_weights, weightless
from pmavae.vmamba import VMAMBA, VMamba
from pmavae.vmamba.checkpoints import config_of, is_vmamba, renamed

SMALL = replace(VMAMBA["vmamba-tiny"], channels=(8, 16, 32, 64), depths=(1, 1, 2, 1), classes=5)
State = dict[str, Tensor]


def small_state(seed: int = 0) -> State:
    """A state dict of SMALL under the names that most released checkpoints have."""
    return random_state({name: tuple(t.shape) for name, t in VMamba(SMALL).state_dict().items()}, seed)


def as_later(state: Mapping[str, Tensor]) -> State:
    """The names and shapes of later code: grouped convolutions, and linear layers as convolutions."""
    result = {}
    for name, tensor in state.items():
        if name.endswith(("x_proj_weight", "dt_projs_weight")):
            name, tensor = name.replace("_weight", ".weight"), tensor.flatten(0, 1)[..., None]
        elif re.search(r"(in_proj|out_proj|fc1|fc2)\.weight$", name):
            tensor = tensor[..., None, None]
        result[name] = tensor
    return result


def as_vanilla(state: Mapping[str, Tensor]) -> State:
    """The names of the first code, put before what a v05 has."""
    names = {"patch_embed.0": "patch_embed.proj", "classifier.norm": "norm", "classifier.head": "head"}
    result = {}
    for name, tensor in state.items():
        for new, old in names.items():
            name = old + name.removeprefix(new) if name.startswith(f"{new}.") else name
        name = re.sub(r"(blocks\.\d+)\.norm\.", r"\1.ln_1.", name)
        result[re.sub(r"(blocks\.\d+)\.op\.", r"\1.self_attention.", name)] = tensor
    return result


def shapes_of(name: str) -> Shapes:
    with weightless():
        return {key: tuple(tensor.shape) for key, tensor in VMamba(VMAMBA[name]).state_dict().items()}


def test_the_tensors_of_the_tiny_variant_are_those_that_were_released() -> None:
    released = tiny_shapes()
    assert shapes_of("vmamba-tiny") == released
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in released.items()}
    assert config_of(state) == VMAMBA["vmamba-tiny"]
    state["classifier.head.weight"], state["classifier.head.bias"] = (
        state["layers.3.blocks.0.mlp.fc2.weight"][:7, :768],
        state["layers.3.blocks.0.norm.bias"][:7],
    )
    assert config_of(state) == replace(VMAMBA["vmamba-tiny"], classes=7)


@pytest.mark.parametrize("scheme", [dict, as_later, as_vanilla], ids=["usual", "later", "vanilla"])
def test_the_tiny_variant_loads_strictly_under_every_scheme(scheme: Callable[[State], State]) -> None:
    with torch.device("meta"):
        state = renamed(scheme({name: torch.empty(shape) for name, shape in tiny_shapes().items()}))
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == tiny_shapes()
    with weightless():
        model = VMamba(VMAMBA["vmamba-tiny"])
    assert model.load_state_dict(state, strict=True, assign=True) == ([], [])


@pytest.mark.parametrize("name", VMAMBA)
def test_a_variant_is_known_by_its_shapes(name: str) -> None:
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes_of(name).items()}
    assert is_vmamba(state) and config_of(renamed(state)) == VMAMBA[name]


@pytest.mark.parametrize("scheme", [dict, as_later, as_vanilla], ids=["usual", "later", "vanilla"])
def test_every_scheme_of_names_loads_exactly(scheme: Callable[[State], State]) -> None:
    state = small_state()
    model = VMamba.from_checkpoint(scheme(state))
    assert model.config == replace(SMALL, preset="vmamba") and not model.training
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())


def test_a_vanilla_checkpoint_computes_what_its_names_say() -> None:
    shapes = small_vanilla_shapes()
    state = random_state(shapes, seed=1)
    model = VMamba.from_checkpoint(state)
    assert (model.config.generation, model.config.d_state, model.config.depths) == ("v0", 16, (1, 1, 1, 1))
    assert len(model.state_dict()) == len(shapes)
    x = torch.randn(1, 3, 36, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = model(x)
    expected = ReleasedForward(renamed(state)).logits(x)
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_saving_and_loading_gives_equal_logits(tmp_path: Path) -> None:
    model = VMamba.from_checkpoint(small_state())
    model.save_pretrained(tmp_path / "mine", "mine-1")
    again = VMamba.from_pretrained(tmp_path / "mine")
    x = torch.randn(2, 3, 40, 36, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model(x), again(x))
    assert (again.weights_id, again.config, again.training) == ("mine-1", model.config, False)
    narrow = model.save_pretrained(tmp_path / "half", "mine-1", torch.float16)
    assert narrow.stat().st_size < 0.7 * (tmp_path / "mine/model.safetensors").stat().st_size
    assert torch.allclose(VMamba.from_pretrained(narrow)(x), model(x), rtol=0.05, atol=0.05)


def wrapped(state: State, how: str) -> Any:
    match how:
        case "model":  # as released, beside what training needs
            return {"model": state, "optimizer": {"lr": 1e-3}, "epoch": 264, "max_accuracy": 82.6}
        case "ema":
            return {"model": {name: t + 1 for name, t in state.items()}, "model_ema": state, "epoch": 1}
        case "module":
            return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    return state


@pytest.mark.parametrize("how", ["plain", "model", "ema", "module"])
@pytest.mark.parametrize("scheme", [as_later, as_vanilla], ids=["later", "vanilla"])
def test_weights_import_converts_a_checkpoint(
    pmavae: Command, here: Path, how: str, scheme: Callable[[State], State]
) -> None:
    state = small_state()
    torch.save(wrapped(scheme(state), how), "vmamba.pth")
    arguments = ("vmamba.pth", "-o", "vmamba.safetensors", "--dtype", "float32", "--json")
    result = pmavae("weights", "import", *arguments)
    assert result.status == 0, result.err
    facts = json.loads(result.out)
    assert (facts["task"], facts["preset"], facts["id"]) == ("vmamba", "vmamba", "vmamba")
    model = VMamba.from_pretrained(here / "vmamba.safetensors")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    info = pmavae("info", "vmamba.safetensors", "--json")
    assert info.status == 0 and '"vmamba"' in info.out.decode()


def without(state: State) -> State:
    return {name: t for name, t in state.items() if name != "layers.1.blocks.0.op.Ds"}


def with_more(state: State) -> State:
    return {**state, "layers.0.blocks.0.extra": torch.ones(1)}


def with_a_wrong_shape(state: State) -> State:
    return {**state, "layers.2.blocks.1.op.A_logs": torch.ones(128, 3)}


def with_a_gap(state: State) -> State:
    return {name.replace("layers.2.blocks.1.", "layers.2.blocks.4."): t for name, t in state.items()}


def with_two_names(state: State) -> State:
    return {**state, "head.bias": torch.ones(5)}


def with_nan(state: State) -> State:
    return {**state, "classifier.head.bias": torch.full((5,), torch.nan)}


def with_too_many_classes(state: State) -> State:
    return {
        **state,
        "classifier.head.weight": torch.zeros(9000, 64),
        "classifier.head.bias": torch.zeros(9000),
    }


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without, "it has no layers.1.blocks.0.op.Ds"),
        (with_more, "layers.0.blocks.0.extra is unknown"),
        (with_a_wrong_shape, "layers.2.blocks.1.op.A_logs has the shape 128 × 3 instead of 128 × 1"),
        (with_a_gap, "the numbers of its blocks have gaps"),
        (with_two_names, "classifier.head.bias under two names"),
        (with_nan, "classifier.head.bias has values that are not finite"),
        (with_too_many_classes, "9000 wide; at most 8192"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_sentence(
    pmavae: Command, here: Path, damage: Callable[[State], State], told: str
) -> None:
    torch.save(damage(small_state()), "vmamba.pth")
    result = pmavae("weights", "import", "vmamba.pth", "-o", "vmamba.safetensors")
    assert result.status == 1 and told in result.err and "vmamba.pth was not imported" in result.err
    assert len(result.err.strip().splitlines()) == 1 and not (here / "vmamba.safetensors").exists()


def test_the_preset_that_is_named_has_to_be_the_right_one(pmavae: Command, here: Path) -> None:
    torch.save(small_state(), "vmamba.pth")
    result = pmavae("weights", "import", "vmamba.pth", "-o", "vmamba.safetensors", "--preset", "vmamba-tiny")
    assert result.status == 1 and "preset vmamba, not vmamba-tiny" in result.err


def test_weights_of_other_networks_are_no_vmamba_and_the_reverse(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="do not come with pmavae: make a file of a released checkpoint"):
        VMamba.from_pretrained("vmamba-tiny")
    PMAVAE.from_pretrained("tiny").save_pretrained(tmp_path / "codec")
    with pytest.raises(WeightsError, match="of the task base, not vmamba"):
        VMamba.from_pretrained(tmp_path / "codec")
    VMamba(SMALL).save_pretrained(tmp_path / "vmamba")
    with pytest.raises(WeightsError, match="no autoencoder: name those of one"):
        PMAVAE.from_pretrained(tmp_path / "vmamba")


def test_more_blocks_than_tensors_are_refused_before_a_network_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    save_weights(path, small_state(), replace(SMALL, depths=(1, 1, 8000, 1)), "deep")
    with pytest.raises(WeightsError, match="its configuration has 8003 blocks"):
        VMamba.from_pretrained(path)
