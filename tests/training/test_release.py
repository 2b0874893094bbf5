"""The ratchet: better weights replace the released ones, worse ones change nothing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_config import CONFIG
from small_restorers import saved, tinted, untrained

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.pretrained.manifest import read_manifest
from pmavae.pretrained.weights import load_weights
from pmavae.training.objectives.reconstruction import fit_decoder, fit_encoder
from pmavae.training.release import SCORE, release, scale_paint, standing


def test_only_better_weights_are_released(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    gradient = Image.linear_gradient("L").resize((96, 80))
    Image.merge("RGB", (gradient, gradient.rotate(90), gradient.rotate(180))).save(pictures / "a.png")
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"version": 1, "weights": []}')

    torch.manual_seed(0)
    model = PMAVAE(CONFIG).eval()
    model.save_pretrained(tmp_path / "worse", "run")
    crops = torch.rand(8, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    fit_encoder(model, crops)
    fit_decoder(model, crops, iterations=5)
    model.save_pretrained(tmp_path / "better", "run")

    first = release(tmp_path / "worse", "test-1", pictures, "none", folder)
    second = release(tmp_path / "better", "test-2", pictures, "none", folder)
    assert second["scores"][SCORE] > first["scores"][SCORE]
    with pytest.raises(WeightsError, match="nothing was released"):
        release(tmp_path / "worse", "test-3", pictures, "none", folder)

    with pytest.raises(WeightsError, match="test-2 is released already"):
        release(tmp_path / "better", "test-2", pictures, "none", folder)

    (entry,) = read_manifest(folder / "manifest.json")
    assert entry.id == "test-2"
    assert [path.name for path in folder.glob("*.safetensors")] == ["test-2.safetensors"]
    assert load_weights(folder / entry.file, entry).id == "test-2"


@pytest.fixture
def evaluated(tmp_path):
    """A folder of pictures, and one of weights with a row of the codec's."""
    pictures, folder = tmp_path / "pictures", tmp_path / "weights"
    pictures.mkdir()
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 200, (64, 72, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "a.png")
    (folder / "manifest.json").write_text('{"version": 1, "weights": []}')
    torch.manual_seed(0)
    PMAVAE(CONFIG).save_pretrained(tmp_path / "codec", "run")
    release(tmp_path / "codec", "codec-1", pictures, "none", folder)
    return pictures, folder


def test_restoration_weights_are_a_ratchet_of_their_own(tmp_path, evaluated):
    pictures, folder = evaluated
    worse = saved(tinted("denoise", 20 / 255), tmp_path / "worse", "run")
    better = saved(tinted("denoise", 10 / 255), tmp_path / "better", "run")
    upscaler = saved(untrained("upscale"), tmp_path / "upscaler", "run")

    first = release(worse, "denoise-test-1", pictures, "none", folder)
    assert first["task"] == "denoise" and first["preset"] == "test" and first["recipe"] == {}
    second = release(better, "denoise-test-2", pictures, "none", folder)
    noisy = f"{SCORE}_noise25"
    assert second["scores"][noisy] > first["scores"][noisy]
    third = release(upscaler, "upscale-test-1", pictures, "none", folder)
    assert list(third["scores"]) == [f"{SCORE}_x2", f"{SCORE}_x4"]

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(WeightsError, match=r"denoise-test-2 has .* dB: nothing was released"):
        release(worse, "denoise-test-3", pictures, "none", folder)
    with pytest.raises(WeightsError, match="upscale-test-1 is released already"):
        release(better, "upscale-test-1", pictures, "none", folder)
    with pytest.raises(WeightsError, match="without paint"):
        release(better, "denoise-test-3", pictures, "none", folder, paint_scale=0.5)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    manifest = read_manifest(folder / "manifest.json")
    assert [entry.id for entry in manifest] == ["upscale-test-1", "denoise-test-2", "codec-1"]
    for entry in manifest:
        assert load_weights(folder / entry.file, entry).id == entry.id
    release(worse, "denoise-test-3", pictures, "none", folder, tolerance=100)
    assert not (folder / "denoise-test-2.safetensors").exists()


def test_a_perfect_score_is_null_in_the_manifest(tmp_path, evaluated):
    pictures, folder = evaluated
    row = release(saved(untrained("denoise"), tmp_path / "plain", "run"), "plain-1", pictures, "none", folder)
    assert row["scores"][f"{SCORE}_clean"] is None
    stored = json.loads((folder / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert stored["weights"][0]["scores"] == row["scores"]


def test_what_nobody_can_see_does_not_decide():
    assert standing({SCORE: 30.0, "ssim_kodak24": 0.9}) == 30
    assert standing({f"{SCORE}_noise25": 30.0, f"{SCORE}_clean": None}) == 37.5
    invisible = [{f"{SCORE}_noise25": 30.0, f"{SCORE}_clean": clean} for clean in (46.0, 60.0)]
    assert standing(invisible[0]) == standing(invisible[1])


def test_scaled_paint_is_a_smaller_amount_of_it():
    torch.manual_seed(0)
    model = PMAVAE(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    latents = model.encode(torch.rand(1, 3, 32, 32))

    def painted(amount):
        style = torch.cat((latents.z_style[:, :-1], torch.full((1, 1, 1, 1), amount)), dim=1)
        return model.decode(latents.replace(z_style=style))

    expected = painted(0.5)
    scale_paint(model, 0.5)
    torch.testing.assert_close(painted(1.0), expected)
