"""`pmavae bench --task`: figures that follow from the protocols, and requests that make no sense."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from small_restorers import saved, tinted, untrained

from pmavae.restoration.levels import Levels
from pmavae.training.degradation import shrink
from pmavae.training.evaluation import SCORE
from pmavae.training.objectives.restoration import (
    CONDITIONS,
    Restoration,
    fidelity,
    luma,
    make_trial,
    restored,
)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(2):
        picture((98, 81), seed).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def denoiser(tmp_path):
    return saved(untrained("denoise"), tmp_path / "denoiser", "plain")


@pytest.fixture
def upscaler(tmp_path):
    return saved(untrained("upscale"), tmp_path / "upscaler", "plain")


def rows_of(done):
    return [json.loads(line, parse_constant=pytest.fail) for line in done.lines]


def one(rows, method, condition, name="mean"):
    (row,) = (r for r in rows if (r["method"], r["condition"], r["picture"]) == (method, condition, name))
    return row


def test_an_untrained_denoiser_scores_what_its_input_does(pmavae, pictures, denoiser):
    done = pmavae("bench", pictures, "--task", "denoise", "--weights", denoiser, "--peers", "input", "--json")
    assert done.status == 0, done.err
    rows = rows_of(done)
    conditions = {"noise15", "noise25", "noise50", "jpeg10", "jpeg20", "jpeg40", "clean"}
    assert {row["condition"] for row in rows} == conditions
    assert {row["method"] for row in rows} == {"plain", "plain auto", "input"}
    for condition in conditions:
        ours, damaged = (one(rows, method, condition) for method in ("plain", "input"))
        assert ours["psnr"] == (damaged["psnr"] and pytest.approx(damaged["psnr"], abs=1e-4))
        each = [one(rows, "plain", condition, str(pictures / f"{i}.png"))["ssim"] for i in range(2)]
        assert ours["ssim"] == pytest.approx(statistics.fmean(each))
        assert damaged["baseline"] == "input" and damaged["gain"] == (None if condition == "clean" else 0)
    clean = one(rows, "plain", "clean")
    assert clean["psnr"] is None and clean["ssim"] == 1 and clean["shift"] == 0
    # σ = 15 alone is 24.6 dB; where the picture is dark or bright, clipping takes some of it away.
    assert 24.5 < one(rows, "input", "noise15")["psnr"] < 25.5
    assert one(rows, "input", "jpeg10")["psnr"] < one(rows, "input", "jpeg40")["psnr"]


def test_an_untrained_upscaler_scores_what_bicubic_does(pmavae, pictures, upscaler):
    done = pmavae("bench", pictures, "--task", "upscale", "--weights", upscaler, "--json", "-q")
    assert done.status == 0, done.err
    rows = rows_of(done)
    assert len(rows) == 2 * 4
    for condition in ("x2", "x4"):
        ours, bicubic, lanczos = (one(rows, m, condition) for m in ("plain", "bicubic", "lanczos"))
        assert ours["psnr"] == pytest.approx(bicubic["psnr"], abs=0.1)
        assert ours["gain"] == pytest.approx(ours["psnr"] - bicubic["psnr"])
        assert ours["baseline"] == lanczos["baseline"] == "bicubic" and bicubic["gain"] == 0
        assert abs(lanczos["gain"]) > 0.01


def test_the_luma_and_its_decibels_are_those_of_the_hand():
    colours = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]).reshape(1, 3, 1, 3)
    assert luma(colours)[0, 0, 0].mul(255).tolist() == pytest.approx([16, 235, 81.481])
    trial = make_trial(np.full((64, 64, 3), 100, np.uint8), CONDITIONS["x2"], 0)
    result = np.array(trial.reference)
    result[2:-2, 2:-2, 1] += 10  # 10 of green are 10 · 128.553 / 255 of luma
    assert fidelity(trial, result).psnr == pytest.approx(20 * math.log10(255 / (10 * 128.553 / 255)))
    result[2:-2, 2:-2] = trial.reference[2:-2, 2:-2]
    result[:2], result[:, -2:] = 255, 0
    assert fidelity(trial, result).psnr == math.inf  # the border of 2 px does not count


@pytest.mark.parametrize("task", ["denoise", "upscale"])
def test_a_tint_is_a_shift_of_the_colour(task):
    grey = np.full((64, 72, 3), 100, np.uint8)
    condition = {"denoise": "clean", "upscale": "x4"}[task]
    trial = make_trial(grey, CONDITIONS[condition], 0)
    found = fidelity(trial, restored(tinted(task, 8 / 255), trial))
    assert found.shift == pytest.approx(8)
    error = 8 / math.sqrt(3) if task == "denoise" else 8 * 65.481 / 255
    assert found.psnr == pytest.approx(20 * math.log10(255 / error))


def test_noise_is_the_same_every_time_and_another_for_each_picture():
    grey = np.full((128, 128, 3), 250, np.uint8)
    first, again, other = (make_trial(grey, CONDITIONS["noise25"], number).damaged for number in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.std(first) == pytest.approx(25, rel=0.02) and first.max() > 255  # and it is not clipped
    half = make_trial(grey, CONDITIONS["noise50"], 3).damaged / 2 + 125
    assert not np.allclose(first, half)  # nor is one condition's noise that of another


def test_trials_are_what_the_field_makes_them():
    original = np.asarray(picture((99, 82)))
    small = make_trial(original, CONDITIONS["x4"], 0)
    assert small.reference.shape == (80, 96, 3)
    assert np.array_equal(small.damaged, shrink(original, 4)) and small.damaged.shape == (20, 24, 3)
    jpeg = make_trial(original, CONDITIONS["jpeg20"], 0)
    assert jpeg.tables is not None and jpeg.tables[0][0] == 40  # 16 of the standard's, times 2.5
    assert CONDITIONS["jpeg20"].levels == Levels(jpeg=20)


def test_scores_of_a_folder_are_the_means_of_its_pictures(pictures):
    model = tinted("denoise", 3 / 255)
    scores = Restoration.measure(model, pictures)
    names = ["noise15", "noise25", "noise50", "jpeg10", "jpeg20", "jpeg40", "clean"]
    assert list(scores) == [f"{SCORE}_{name}" for name in names]
    trials = [
        make_trial(np.asarray(picture((98, 81), seed)), CONDITIONS["noise25"], seed) for seed in range(2)
    ]
    expected = statistics.fmean(fidelity(trial, restored(model, trial)).psnr for trial in trials)
    assert scores[f"{SCORE}_noise25"] == pytest.approx(expected, abs=1e-3)
    assert scores[f"{SCORE}_clean"] == pytest.approx(20 * math.log10(255 * math.sqrt(3) / 3), abs=0.1)


def test_weights_are_compared_and_everything_is_kept(pmavae, pictures, denoiser, tmp_path):
    other = saved(tinted("denoise", 0.1), tmp_path / "other", "plain")
    done = pmavae(
        "bench", pictures, "--task", "denoise", "--weights", denoiser, "--weights", other, "--peers", "input",
        "--conditions", "jpeg20,noise50", "--limit", 1, "--save", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.status == 0, done.err
    singles, means = done.out.decode().split("\n\n")
    assert len(singles.splitlines()) == len(means.splitlines()) == 1 + 2 * 5
    assert f"plain ({other}) auto" in singles and "+0.00 over input" in means
    assert "1.png" not in singles
    report = json.loads((tmp_path / "scores.json").read_text())
    assert list(report) == ["rows", "means"] and len(report["rows"]) == 10
    assert [row["condition"] for row in report["means"]] == ["jpeg20"] * 5 + ["noise50"] * 5
    plain, worse = (one(report["means"], name, "jpeg20") for name in ("plain", f"plain ({other})"))
    assert worse["gain"] < plain["gain"] == pytest.approx(0, abs=1e-6)
    assert worse["shift"] > plain["shift"]


@pytest.mark.parametrize(("peer", "module"), [("bm3d", "bm3d"), ("nlmeans", "cv2")])
def test_a_classical_denoiser_takes_noise_away(pmavae, tmp_path, denoiser, peer, module):
    pytest.importorskip(module)
    folder = tmp_path / "smooth"
    folder.mkdir()
    Image.linear_gradient("L").resize((72, 64)).convert("RGB").save(folder / "a.png")
    done = pmavae(
        "bench", folder, "--task", "denoise", "--weights", denoiser, "--peers", f"{peer},input", "--json",
        "-q", "--conditions", "noise25,clean",
    )  # fmt: skip
    assert done.status == 0, done.err
    rows = rows_of(done)
    theirs, damaged = (one(rows, name, "noise25") for name in (peer, "input"))
    assert theirs["psnr"] > damaged["psnr"] + 4
    assert theirs["baseline"] == ("bm3d" if peer == "bm3d" else "input")
    assert [row["method"] for row in rows if row["condition"] == "clean"] == ["plain", "plain auto", "input"]


def test_an_unreadable_picture_is_named_and_the_others_are_scored(pmavae, pictures, denoiser):
    (pictures / "0.png").write_bytes(b"no picture")
    done = pmavae(
        "bench", pictures, "--task", "denoise", "--weights", denoiser, "--peers", "none", "--conditions",
        "noise15", "--json",
    )  # fmt: skip
    assert done.status == 1 and "0.png is not a picture" in done.err
    rows = [row for row in rows_of(done) if "method" in row]
    assert {row["picture"] for row in rows} == {str(pictures / "1.png"), "mean"}
    assert all(row["gain"] is None for row in rows if row["picture"] == "mean")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--task", "restyle"], 2, "restyle"),
        (["--task", "denoise", "--latents"], 2, "--latents has no meaning with --task"),
        (["--task", "denoise", "--perceptual", "none"], 2, "--perceptual has no meaning with --task"),
        (["--conditions", "x2"], 2, "--conditions has no meaning without --task"),
        (["--task", "denoise", "--conditions", "noise25,x2"], 2, "--conditions x2 is none of noise15"),
        (["--task", "denoise", "--peers", "input,webp"], 2, "--peers webp is none of input, bm3d, nlmeans"),
        (["--task", "upscale", "--peers", "bm3d"], 2, "--peers bm3d is none of bicubic, lanczos"),
        (["--task", "denoise", "--peers", "nlmeans", "--conditions", "jpeg10"], 1, "nlmeans is for noise"),
        (["--task", "upscale", "--weights", "{denoiser}"], 1, "weights of the task denoise, not upscale"),
        (["--task", "denoise", "--weights", "nowhere"], 1, "there are no weights nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    pmavae, here, pictures, denoiser, arguments, status, words
):
    done = pmavae("bench", pictures, *(argument.format(denoiser=denoiser) for argument in arguments))
    assert done.status == status and words in done.err and "Traceback" not in done.err
    assert not done.out


def test_a_peer_that_is_not_installed_says_how(pmavae, pictures, denoiser, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else find(name))
    done = pmavae(
        "bench", pictures, "--task", "denoise", "--weights", denoiser, "--peers", "nlmeans", "--json"
    )
    assert done.status == 1 and "peer nlmeans" in done.err
    assert "pip install opencv-python-headless" in done.err
