"""Training a texture prior: it learns, resumes exactly, and its weights are a ratchet of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from small_config import CONFIG
from small_priors import codec, prior

from pmavae.errors import WeightsError
from pmavae.texture.network import TexturePrior
from pmavae.training.config import ConfigError, config_from_dict
from pmavae.training.dataset import build_cache
from pmavae.training.distributed import Processes
from pmavae.training.objectives.texture import TextureStatistics, velocity_error
from pmavae.training.release import VELOCITY, release
from pmavae.training.run_folder import checkpoints, load_checkpoint, save_checkpoint
from pmavae.training.schedule import Clock
from pmavae.training.sources import find_pictures
from pmavae.training.trainer import Trainer

PHASE = {"name": "only", "share": 1, "crop": 64, "batch": 4, "learning_rate": 3e-3, "objective": "prior"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        picture((200, 180), seed).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def cache(photos):
    path = photos / "pictures.u8"
    build_cache(find_pictures([photos]), path)
    return path


def as_tensor(image):
    return torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1)[None].float()


def trainer(cache, steps, **settings):
    data = {"task": "texture-vary", "precision": "fp32", "phases": [PHASE], "adversary": {"weight": 0}}
    config, model = config_from_dict(data | settings), codec()
    objective = objective_of(model, config)
    objective.open(cache)
    clock, processes = Clock(steps), Processes(torch.device("cpu"))
    return Trainer(objective, prior(model, active=False), config, clock, processes)


def objective_of(model, config):
    objective = TextureStatistics(config)
    objective.codec = model.requires_grad_(False)
    return objective


def test_a_few_steps_know_some_of_the_texture(cache):
    run = trainer(cache, 120, texture={"draws": 2})
    whole = as_tensor(picture((128, 96), 1))
    before = velocity_error(run.average, run.objective.codec, whole)
    reports = list(run.run())
    assert {"means", "differences"} <= set(reports[0].values)
    after = velocity_error(run.average, run.objective.codec, whole)
    assert before > 1.5 and after < 0.9 * before


def test_the_codec_stays_as_it_is(cache):
    run = trainer(cache, 2)
    list(run.run())
    expected, found = codec().state_dict(), run.objective.codec.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_run_in_two_parts_is_the_same_run_bit_for_bit(cache, tmp_path):
    phases = [PHASE | {"accumulate": 2}, PHASE | {"name": "next", "crop": 96, "batch": 2}]
    straight = trainer(cache, 8, phases=phases)
    list(straight.run())
    first = trainer(cache, 8, phases=phases)
    calls = iter(range(1, 100))
    list(first.run(lambda: next(calls) >= 3))
    assert first.step == 3
    save_checkpoint(tmp_path, first.state, first.numbers, "test", keep=1)
    second = trainer(cache, 8, phases=phases)
    second.numbers = load_checkpoint(checkpoints(tmp_path)[-1], second.state)
    list(second.run())
    expected, got = straight.state.tensors(), second.state.tensors()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


def test_validation_scores_and_shows_a_prior():
    model = codec()
    pictures = [
        torch.from_numpy(np.asarray(picture((72, 64), s)) / 255).permute(2, 0, 1)[None].float()
        for s in (0, 1)
    ]
    objective = objective_of(model, config_from_dict({"task": "texture-vary", "phases": [PHASE]}))
    scores = [objective.scores(prior(model, active=False), pictures) for _ in range(2)]
    assert scores[0] == scores[1] and 1 < scores[0]["velocity"] < 3
    assert objective.preview(prior(model), pictures).shape == (3, 2 * 256, 3 * 256)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "texture-vary", "phases": [PHASE | {"objective": "codec"}]}, "does not go with task"),
        ({"phases": [PHASE]}, "objective prior does not go with task base"),
        ({"task": "texture-vary", "phases": [PHASE], "texture": {"draws": 0}}, "texture.draws"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(settings)


def test_only_a_better_prior_is_released(tmp_path):
    pictures, folder = tmp_path / "pictures", tmp_path / "weights"
    pictures.mkdir()
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 200, (64, 80, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "a.png")
    (folder / "manifest.json").write_text('{"version": 1, "weights": []}')
    model = codec()
    own = model.save_pretrained(tmp_path / "codec", "codec-1")
    better, worse = prior(model, active=False), prior(model, active=False)
    with torch.no_grad():
        worse.head.bias.fill_(1.0)
    better.save_pretrained(tmp_path / "better", "run")
    worse.save_pretrained(tmp_path / "worse", "run")
    first = release(tmp_path / "worse", "texture-test-1", pictures, "none", folder, codec=own)
    second = release(tmp_path / "better", "texture-test-2", pictures, "none", folder, codec=own)
    assert (second["task"], second["preset"]) == ("texture-vary", CONFIG.preset)
    assert second["scores"][VELOCITY] < first["scores"][VELOCITY]
    assert {"low_psnr_kodak24", "high_correlation_kodak24"} < set(second["scores"])
    with pytest.raises(WeightsError, match=r"texture-test-2 has -\S+: nothing was released"):
        release(tmp_path / "worse", "texture-test-3", pictures, "none", folder, codec=own)
    with pytest.raises(WeightsError, match="without paint"):
        release(tmp_path / "better", "x", pictures, "none", folder, codec=own, paint_scale=0.5)
    foreign = codec(seed=1).save_pretrained(tmp_path / "foreign", "codec-2")
    with pytest.raises(WeightsError, match="another encoder"):
        release(tmp_path / "better", "x", pictures, "none", folder, codec=foreign)
    assert [path.name for path in folder.glob("*.safetensors")] == ["texture-test-2.safetensors"]


def test_the_command_trains_a_prior_that_the_task_takes(photos, tmp_path, installed):
    out, small = tmp_path / "run", tmp_path / "small"
    small.mkdir()
    picture((80, 64)).save(small / "a.png")
    train = [
        *("--task", "texture-vary", "--data", photos, "--validate", small),
        *("--out", out, "--steps", 2, "--threads", 1),
        *("--device", "cpu", f"--set=phases={json.dumps([PHASE | {'batch': 1}])}", "--log-every", 1),
    ]
    command = [sys.executable, "-m", "pmavae_cli", "train", *map(str, train)]
    plan = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert plan.returncode == 0 and "prior" in plan.stdout, plan.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error of the velocity" in done.stderr and (out / "contact-sheet.png").is_file()
    assert 0.5e6 < sum(p.numel() for p in TexturePrior.from_pretrained(out).parameters()) < 1.5e6
    made = installed("texture-vary", small / "a.png", "--weights", out, "-v", "--amount", "1")
    assert made.status == 0, made.err
    assert "texture-vary-tiny-run-2" in made.err and (small / "a.texture-vary.png").is_file()
