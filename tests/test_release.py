"""The ratchet: better weights replace the released ones, worse ones change nothing."""

import pytest
import torch
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.training.linear_start import fit_decoder, fit_encoder
from pmavae.training.release import SCORE, release, scale_paint
from pmavae.weights import Manifest, load_weights


def test_only_better_weights_are_released(tmp_path):
    from PIL import Image

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

    (entry,) = Manifest.load(folder / "manifest.json").entries
    assert entry.id == "test-2"
    assert [path.name for path in folder.glob("*.safetensors")] == ["test-2.safetensors"]
    assert load_weights(folder / entry.file, entry).id == "test-2"


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
