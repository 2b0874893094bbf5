"""The autoencoder: budgets, shapes, sizes, gradients, and what a new model can already do."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from pmavae import PMAVAE, PRESETS
from pmavae.config import ModelConfig
from pmavae.errors import ImageError
from pmavae.latents import exchange, expected_shapes
from pmavae.model import grain

BUDGETS = {
    "tiny": (0.56e6, 1.91e6, 2.47e6),
    "small": (2.00e6, 4.27e6, 6.27e6),
    "base": (5.18e6, 9.83e6, 15.01e6),
}
LATENTS = {"tiny": (24, 6, 96), "small": (32, 8, 128), "base": (32, 8, 128)}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = PMAVAE(PRESETS["tiny"])
    with torch.no_grad():  # leave the zero start, so that every path matters
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model.eval()


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_budgets_and_latents(name):
    model = PMAVAE(PRESETS[name])
    counts = count(model.encoder), count(model.decoder), count(model)
    for got, budget in zip(counts, BUDGETS[name], strict=True):
        assert abs(got / budget - 1) < 0.02
    config = model.config
    assert (config.base_channels, config.detail_channels, config.style_channels) == LATENTS[name]
    assert expected_shapes(config, 64, 48)["z_base"] == (config.base_channels, 4, 3)
    assert expected_shapes(config, 64, 48)["z_detail"] == (config.detail_channels, 8, 6)


def test_the_readme_has_the_counts_of_the_built_models():
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    for name in PRESETS:
        model = PMAVAE(PRESETS[name])
        counts = [f"{count(part) / 1e6:.2f} M" for part in (model.encoder, model.decoder, model)]
        assert f"| {name} | {' | '.join(counts)} |" in readme


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (16, 31), (33, 47), (100, 64)])
def test_any_size_from_16_px_comes_back_as_it_was(tiny, size):
    latents = tiny.encode(torch.rand(2, 3, *size))
    for name, tensor in latents.tensors().items():
        assert tuple(tensor.shape[1:]) == expected_shapes(tiny.config, *size)[name]
    picture = tiny.decode(latents)
    assert picture.shape == (2, 3, *size)
    assert picture.min() >= 0 and picture.max() <= 1


def test_every_parameter_gets_a_gradient(tiny):
    picture = torch.rand(1, 3, 32, 48)
    posterior = tiny.encoder(picture)
    style = torch.cat((posterior.z_style[:, :-1], torch.ones_like(posterior.z_style[:, -1:])), dim=1)
    decoded = tiny.decoder(posterior.z_base, posterior.z_detail, style)
    logvars = posterior.logvar_base.sum() + posterior.logvar_detail.sum() + posterior.logvar_style.sum()
    (decoded.square().mean() + logvars).backward()
    without = [n for n, p in tiny.named_parameters() if p.grad is None or not p.grad.any()]
    tiny.zero_grad(set_to_none=True)
    assert without == []


def test_a_batch_is_its_pictures_one_by_one(tiny):
    pictures = torch.rand(2, 3, 32, 32)
    together = tiny.decode(tiny.encode(pictures))
    alone = torch.cat([tiny.decode(tiny.encode(p[None])) for p in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_latents_are_normalised_and_style_holds_what_was_taken_out(tiny):
    latents = tiny.encode(torch.rand(1, 3, 64, 64))
    for z in exchange(latents.z_base, latents.z_detail):
        assert z.mean((2, 3)).abs().max() < 1e-4
        assert (z.std((2, 3), correction=0) - 1).abs().max() < 0.01
    assert latents.z_style[0, -1].item() == 0  # an encoded picture asks for no paint


def test_paint_blocks_act_only_on_a_mixed_style(tiny):
    latents = tiny.encode(torch.rand(1, 3, 32, 32))
    tensors = latents.z_base, latents.z_detail, latents.z_style
    with torch.no_grad():
        torch.testing.assert_close(tiny.decoder(*tensors, paint=True), tiny.decoder(*tensors, paint=False))
        painted = latents.z_style.clone()
        painted[:, -1] = 1
        assert (tiny.decoder(*tensors[:2], painted) - tiny.decoder(*tensors)).abs().max() > 1e-4


def test_pictures_are_taken_as_tensor_pil_and_array(tiny):
    import numpy as np

    array = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255
    expected = tiny.encode(tensor).z_base
    for picture in (array, Image.fromarray(array)):
        torch.testing.assert_close(tiny.encode(picture).z_base, expected)


def test_the_grain_of_the_paint_is_white_and_the_same_for_every_size():
    noise = grain(96, 80, torch.device("cpu"))
    assert torch.equal(noise[..., :32, :40], grain(32, 40, torch.device("cpu")))
    assert noise.mean().abs() < 0.02 and (noise.var() - 1).abs() < 0.02
    for step in (1, 2, 16):
        assert (noise[..., step:] * noise[..., :-step]).mean().abs() < 0.03
        assert (noise[..., step:, :] * noise[..., :-step, :]).mean().abs() < 0.03


def test_decoding_does_not_depend_on_memory_layout_or_dtype(tiny):
    latents = tiny.encode(torch.rand(1, 3, 64, 48))
    strided = latents.replace(z_detail=latents.z_detail.contiguous(memory_format=torch.channels_last))
    plain = latents.replace(z_detail=latents.z_detail.contiguous())
    assert torch.equal(tiny.decode(strided), tiny.decode(plain))
    assert tiny.decode(latents.to(dtype=torch.float16)).dtype == torch.float32
    with pytest.raises(ValueError, match="z_base has the shape"):
        tiny.decode(latents.replace(z_base=latents.z_base[:, :5]))


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (1, 3, 15, 16), (3, 32, 32), (1, 4, 32, 32)])
def test_unusable_shapes_are_refused_by_name(tiny, shape):
    with pytest.raises(ImageError, match=r"px|expected|empty"):
        tiny.encode(torch.rand(shape))


def test_configuration_round_trip_and_refusals():
    config = PRESETS["small"]
    assert ModelConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown configuration fields: colour"):
        ModelConfig.from_dict(config.to_dict() | {"colour": 1})
    with pytest.raises(ValueError, match="style_channels=10"):
        ModelConfig.from_dict(config.to_dict() | {"style_channels": 10})
