"""A VMamba as the perceptual network: frozen, its weights a file, and a training that uses it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Command, picture

from pmavae.errors import WeightsError
from pmavae.style_transfer.distances import content_distance
from pmavae.training.perceptual import VMambaFeatures, perceptual_network
from pmavae.vmamba import MEAN, STD, VMAMBA, VMamba

SMALL = replace(VMAMBA["vmamba-tiny"], channels=(8, 16, 32, 64), depths=(1, 1, 1, 1), classes=5)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of a small network that calls itself vmamba-tiny."""
    torch.manual_seed(0)
    return VMamba(SMALL).save_pretrained(tmp_path_factory.mktemp("vmamba"), "small-vmamba")


def test_the_maps_are_those_of_the_stages_of_a_normalised_picture(features: Path) -> None:
    network = perceptual_network(f"vmamba-tiny={features}")
    assert isinstance(network, VMambaFeatures)
    x = torch.rand(2, 3, 64, 48)
    mean, deviation = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    expected = VMamba.from_pretrained(features).features((x - mean) / deviation)
    for found, wanted in zip(network(x), expected, strict=True):
        assert torch.equal(found, wanted)


def test_it_is_frozen_and_gives_gradients_to_the_input(features: Path) -> None:
    network = perceptual_network(f"vmamba-tiny={features.parent}")
    assert network is not None
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    assert not network.train().training and not any(m.training for m in network.modules())
    maps = network(x)
    assert [m.shape[-1] for m in maps] == [16, 8, 4, 2]
    content_distance(maps, network(torch.rand(2, 3, 64, 64)), network.content_layers).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_missing_or_other_weights_are_one_sentence(features: Path, tmp_path: Path) -> None:
    for name in ("vmamba-tiny", "vmamba-tiny="):
        with pytest.raises(WeightsError, match=r"do not come with pmavae: .* as vmamba-tiny=WEIGHTS"):
            perceptual_network(name)
    with pytest.raises(WeightsError, match="has weights of vmamba-tiny, not of vmamba-base"):
        perceptual_network(f"vmamba-base={features}")
    with pytest.raises(WeightsError, match="there are no weights nowhere"):
        perceptual_network("vmamba-tiny=nowhere")


def test_train_takes_a_vmamba_and_keeps_the_whole_path_of_its_weights(
    pmavae: Command, here: Path, features: Path
) -> None:
    (here / "photos").mkdir()
    for seed in range(4):
        picture((96, 80), seed).save(here / f"photos/{seed}.png")
    (here / "vmamba.safetensors").write_bytes(features.read_bytes())
    phase = '--set=phases=[{"name":"short","share":1,"crop":64,"batch":2,"learning_rate":1e-3}]'
    fast = (phase, "--set=adversary.weight=0", "--set=linear_crops=16", "--set=precision=fp32")
    options = ("--device", "cpu", "--threads", 1, "--log-every", 1, "--steps", 2, "--out", "run", *fast)
    result = pmavae("train", "--data", "photos", "--perceptual", "vmamba-tiny=vmamba.safetensors", *options)
    assert result.status == 0, result.err
    with (here / "run/log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "train"]
    assert len(rows) == 2 and all(float(row["perceptual"]) > 0 for row in rows)
    network = json.loads((here / "run/config.json").read_text())["loss"]["network"]
    assert network == f"vmamba-tiny={here / 'vmamba.safetensors'}"


def test_train_without_weights_ends_before_the_pictures_are_read(pmavae: Command, here: Path) -> None:
    (here / "photos").mkdir()
    picture((96, 80)).save(here / "photos/a.png")
    result = pmavae("train", "--data", "photos", "--out", "run", "--perceptual", "vmamba-tiny", "--steps", 1)
    assert result.status == 1 and "vmamba-tiny need its weights" in result.err
    assert len(result.err.strip().splitlines()) == 1
