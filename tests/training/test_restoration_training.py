"""Training a restoration network: it learns, resumes exactly, and its weights serve the task."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import picture
from small_restorers import SMALL, network

from pmavae.errors import PMAVAEError
from pmavae.images.pixels import to_unit
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer
from pmavae.restoration.tiles import restore_whole
from pmavae.training.config import ConfigError, config_from_dict
from pmavae.training.dataset import build_cache
from pmavae.training.distributed import Processes
from pmavae.training.objectives.restoration import Restoration, condition_of, fidelity, make_trial, restored
from pmavae.training.run_folder import (
    RunFolder,
    checkpoints,
    load_checkpoint,
    resolve_config,
    save_checkpoint,
    usable_phases,
)
from pmavae.training.schedule import Clock
from pmavae.training.sources import find_pictures
from pmavae.training.trainer import Trainer

PHASE = {"name": "only", "share": 1, "crop": 32, "batch": 4, "learning_rate": 2e-3, "objective": "restore"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(12):
        picture((300, 280), seed % 3).save(folder / f"{seed:02d}.png")
    return folder


@pytest.fixture(scope="module")
def cache(photos):
    path = photos / "pictures.u8"
    build_cache(find_pictures([photos]), path)
    return path


def trainer(cache, task, steps, **settings):
    data = {"task": task, "precision": "fp32", "phases": [PHASE], "adversary": {"weight": 0}} | settings
    config = config_from_dict(data)
    objective = Restoration(config)
    objective.open(cache)
    torch.manual_seed(0)
    device = torch.device("cpu")
    return Trainer(objective, Restorer(SMALL[task]), config, Clock(steps), Processes(device))


def objective(task):
    return Restoration(config_from_dict({"task": task, "phases": [PHASE]}))


def test_a_few_steps_take_noise_out(cache):
    run = trainer(cache, "denoise", 200, damage={"shares": [0, 1, 0, 0, 0], "noise": 50.0})
    list(run.run())
    clean = torch.from_numpy(np.asarray(picture((96, 96), 1)) / 255).permute(2, 0, 1)[None].float()
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 30 / 255
    restored = restore_whole(run.average, noisy, Levels(noise=30))
    before, after = (float((x - clean).square().mean()) for x in (noisy, restored))
    assert after < 0.6 * before


@pytest.mark.parametrize(("task", "halfway"), [("denoise", 3), ("upscale", 7)])
def test_a_run_in_two_parts_is_the_same_run_bit_for_bit(cache, tmp_path, task, halfway):
    phases = [PHASE | {"accumulate": 2}, PHASE | {"name": "next", "crop": 48, "batch": 2}]
    straight = trainer(cache, task, 10, phases=phases)
    assert [r.step for r in straight.run()] == list(range(1, 11))
    first = trainer(cache, task, 10, phases=phases)
    calls = iter(range(1, 100))
    list(first.run(lambda: next(calls) >= halfway))
    assert first.step == halfway
    save_checkpoint(tmp_path, first.state, first.numbers, "test", keep=1)
    second = trainer(cache, task, 10, phases=phases)
    second.numbers = load_checkpoint(checkpoints(tmp_path)[-1], second.state)
    list(second.run())
    expected, got = straight.state.tensors(), second.state.tensors()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


@pytest.mark.parametrize("task", ["denoise", "upscale"])
def test_validation_of_an_untrained_network_is_that_of_the_damage(task):
    pictures = [
        torch.from_numpy(np.asarray(picture((72, 64), s)) / 255).permute(2, 0, 1)[None].float()
        for s in (0, 1)
    ]
    scores = objective(task).scores(Restorer(SMALL[task]), pictures)
    if task == "denoise":  # σ 25, then JPEG of quality 20
        assert 17 < scores["psnr"] < 28
    grid = objective(task).preview(Restorer(SMALL[task]), pictures)
    assert grid.shape == (3, 2 * 256, 3 * 256)
    damaged, restored, clean = grid.chunk(3, dim=2)
    assert (damaged - restored).abs().mean() < 0.01 < (damaged - clean).abs().mean()


def test_validation_is_the_evaluation_of_its_conditions():
    pixels = [np.asarray(picture((72, 64), seed)) for seed in range(5)]
    model = network("denoise")
    found = []
    for number, name in enumerate(("noise25", "jpeg20", "noise50", "jpeg10", "noise10")):
        condition = condition_of(model.config, number)
        assert condition.name == name
        made = make_trial(pixels[number], condition, number)
        found.append(fidelity(made, restored(model, made)).psnr)
    scores = objective("denoise").scores(model, [to_unit(each) for each in pixels])
    assert scores["psnr"] == pytest.approx(sum(found) / len(found), abs=1e-3)


def test_validation_of_an_upscaler_takes_its_scales_in_turn():
    conditions = [condition_of(SMALL["upscale"], number) for number in range(4)]
    assert [condition.name for condition in conditions] == ["x2", "x4", "x2", "x4"]


def test_the_task_brings_phases_of_its_own(tmp_path):
    def resolved(**flags):
        return resolve_config(
            RunFolder(tmp_path), resumed=False, file=None, flags=flags, settings=[], on_cpu=True
        )

    assert {phase.objective for phase in resolved(task="denoise").phases} == {"restore"}
    assert "restore" not in {phase.objective for phase in resolved().phases}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phases": [PHASE]}, "objective restore does not go with task base"),
        ({"task": "denoise"}, "objective codec does not go with task denoise"),
        ({"damage": {"shares": [0, 0, 0, 0, 0]}}, "five shares"),
        ({"damage": {"shares": [1, 1]}}, "five shares"),
        ({"damage": {"jpeg": [50, 10]}}, "lowest and a highest quality"),
        ({"task": "sharpen"}, "task"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(settings)


def test_a_phase_needs_pictures_as_large_as_its_enlarged_crops():
    config = config_from_dict({"task": "upscale", "phases": [PHASE | {"crop": 64}, PHASE | {"crop": 96}]})
    kept, reasons = usable_phases(config, Restoration(config), 300)
    assert [phase.crop for phase in kept.phases] == [64]
    assert reasons == ["phase only is left out: no picture has 400 px on both sides"]
    with pytest.raises(PMAVAEError, match="larger pictures"):
        usable_phases(config, Restoration(config), 200)


def test_the_command_trains_a_network_that_the_task_takes(photos, tmp_path, installed):
    out = tmp_path / "run"
    train = [
        *("--task", "upscale", "--data", photos, "--out", out, "--steps", 3, "--threads", 1),
        *("--device", "cpu", f"--set=phases={json.dumps([PHASE])}", "--log-every", 1),
    ]
    command = [sys.executable, "-m", "pmavae_cli", "train", *map(str, train)]
    plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert plan.returncode == 0 and "upscale" in plan.stdout and "restore" in plan.stdout
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "contact-sheet.png").is_file()
    picture((40, 30)).save(tmp_path / "small.png")
    large = tmp_path / "large.png"
    result = installed("upscale", tmp_path / "small.png", "-o", large, "--weights", out, "-v")
    assert result.status == 0, result.err
    assert "upscale-tiny-run-3" in result.err
    other = subprocess.run(
        [*command[:4], "--task", "denoise", *map(str, train[2:])], capture_output=True, text=True
    )
    assert other.returncode == 1
    assert "is a run of task upscale, preset tiny, not of task denoise" in other.stderr
