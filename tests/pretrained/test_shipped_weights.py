"""What people get: the weights in the package, on the example pictures, and the README's own code."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmavae import PMAVAE
from pmavae.images.metrics import psnr
from pmavae.images.pixels import to_unit
from pmavae.latents import mix_style
from pmavae.pretrained.manifest import read_manifest, weights_folder
from pmavae.restoration.levels import Levels, estimate_levels
from pmavae.restoration.network import Restorer
from pmavae.restoration.tiles import restore_pixels, restore_whole
from pmavae.style_transfer.distances import octaves, sliced_wasserstein
from pmavae.texture.network import TexturePrior
from pmavae.texture.sampling import vary
from pmavae.training.degradation import recompress, shrink
from pmavae.training.objectives.reconstruction import grid_share
from pmavae.training.objectives.texture import high_frequency_correlation, low_frequency_psnr, velocity_error

ROOT = Path(__file__).parents[2]
unit = partial(to_unit, dtype=torch.float64)


def read(name, width=480):
    picture = Image.open(ROOT / "examples" / name).convert("RGB")
    return picture.resize((width, width * picture.height // picture.width), Image.Resampling.LANCZOS)


def as_array(picture):
    return (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def tiny():
    return PMAVAE.from_pretrained("tiny")


@pytest.mark.parametrize(
    ("name", "decibels"),
    [("content-ridge.jpg", 26), ("content-seeds.jpg", 26), ("style-starry-night.jpg", 20)],
)
def test_reconstruction_is_faithful(tiny, name, decibels):
    picture = read(name)
    latents = tiny.encode(picture)
    decoded = tiny.decode(latents)
    assert psnr(unit(np.asarray(picture)), unit(as_array(decoded))) > decibels
    assert latents.z_base.isfinite().all() and latents.z_base.half().isfinite().all()
    # No colour cast: every channel keeps its mean to within one level of 255.
    cast = as_array(decoded).mean((0, 1)) - np.asarray(picture).mean((0, 1))
    assert np.abs(cast).max() < 1


def test_small_is_more_faithful_than_tiny(tiny):
    small = PMAVAE.from_pretrained("small")
    for name in ("content-ridge.jpg", "content-seeds.jpg", "style-orange-trees.jpg"):
        picture = read(name)
        of_tiny, of_small = (
            float(psnr(unit(np.asarray(picture)), unit(as_array(model.decode(model.encode(picture))))))
            for model in (tiny, small)
        )
        assert of_small > of_tiny + 0.5


def test_more_strength_is_nearer_to_the_style(tiny):
    content, style = read("content-mountains.jpg"), read("style-starry-night.jpg")
    of_content, of_style = tiny.encode(content), tiny.encode(style)
    target = torch.from_numpy(np.array(style)).permute(2, 0, 1)[None].float() / 255
    distances = []
    for strength in (0.0, 0.5, 1.0):
        z_style = mix_style(of_content.z_style, [(of_style.z_style, 1.0)], strength)
        painted = tiny.decode(of_content.replace(z_style=z_style))
        wanted = [(octaves(target), 1.0)]
        distances.append(float(sliced_wasserstein(painted, wanted, torch.Generator().manual_seed(0))[0]))
        assert grid_share(painted) < 0.05
        if strength == 0:
            assert torch.equal(painted, tiny.decode(of_content))
    assert distances[0] > distances[1] > distances[2]


def test_flat_and_extreme_pictures_survive(tiny):
    for value in (0.0, 0.5, 1.0):
        flat = torch.full((1, 3, 40, 56), value)
        assert (tiny.decode(tiny.encode(flat)) - flat).abs().max() < 0.06
    noise = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    assert tiny.decode(tiny.encode(noise)).isfinite().all()


def test_the_readme_code_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["picture"].shape[:2] == (1, 3)  # type: ignore[attr-defined]


def test_the_shipped_denoiser_takes_noise_out_and_keeps_the_colours():
    model = Restorer.from_pretrained("tiny", task="denoise")
    for name in ("content-ridge.jpg", "content-seeds.jpg"):
        clean = np.asarray(read(name))
        noise = np.random.default_rng(0).normal(0, 25, clean.shape)
        noisy = (clean + noise).round().clip(0, 255).astype(np.uint8)
        restored = restore_pixels(model, noisy, estimate_levels(noisy))
        before, after = (float(psnr(unit(clean), unit(x))) for x in (noisy, restored))
        assert after > before + 7
        # Noise that is not clipped: clipping alone moves the mean, and how far cannot be told exactly.
        full = unit(clean) + torch.from_numpy(noise).permute(2, 0, 1)[None] / 255
        shift = restore_whole(model, full, Levels(noise=25)).double().mean((2, 3)) - full.mean((2, 3))
        assert shift.abs().max() < 0.5 / 255


def test_the_shipped_denoiser_takes_jpeg_artefacts_out():
    model = Restorer.from_pretrained("tiny", task="denoise")
    for name in ("content-ridge.jpg", "content-seeds.jpg", "style-orange-trees.jpg"):
        clean = np.asarray(read(name))
        damaged, _ = recompress(clean, 10, halve=True)
        levels = estimate_levels(damaged)
        assert levels.jpeg == 10
        restored = restore_pixels(model, damaged, levels)
        before, after = (float(psnr(unit(clean), unit(x))) for x in (damaged, restored))
        assert after > before + 0.5
        assert np.abs(restored.mean((0, 1)) - damaged.mean((0, 1))).max() < 0.5


def test_a_clean_picture_stays_as_it_is():
    model = Restorer.from_pretrained("tiny", task="denoise")
    for name in ("content-ridge.jpg", "content-seeds.jpg", "content-mountains.jpg"):
        clean = np.asarray(read(name))
        assert psnr(unit(clean), unit(restore_pixels(model, clean, Levels()))) > 44
        restored = restore_pixels(model, clean, estimate_levels(clean).within())
        assert psnr(unit(clean), unit(restored)) > 36  # the codec's own reconstruction has about 30


def test_flat_areas_stay_flat_and_edges_do_not_ring():
    model = Restorer.from_pretrained("tiny", task="denoise")
    clean = np.full((96, 192, 3), (70, 110, 160), np.uint8)
    clean[:, 96:] = (180, 150, 120)
    noise = np.random.default_rng(0).normal(0, 25, clean.shape)
    noisy = (clean + noise).round().clip(0, 255).astype(np.uint8)
    restored = restore_pixels(model, noisy, Levels(noise=25)).astype(float)
    left, right = restored[8:-8, 8:88], restored[8:-8, 104:-8]
    for flat, colour in ((left, clean[0, 0]), (right, clean[0, -1])):
        assert flat.std((0, 1)).max() < 2.5  # of 25
        assert np.abs(flat - colour).max() < 15
    assert np.abs(restored[8:-8, 90:94] - clean[0, 0]).mean() < 3


@pytest.mark.parametrize(("scale", "decibels"), [(2, 1.0), (4, 0.4)])
def test_the_shipped_upscaler_is_better_than_bicubic(scale, decibels):
    model = Restorer.from_pretrained("tiny", task="upscale")
    for name in ("content-ridge.jpg", "content-seeds.jpg", "content-mountains.jpg"):
        clean = np.asarray(read(name))[:160, :240]
        small = shrink(clean, scale)
        bicubic = np.asarray(Image.fromarray(small).resize((240, 160), Image.Resampling.BICUBIC))
        restored = restore_pixels(model, small, Levels(), scale=scale)
        before, after = (float(psnr(unit(clean), unit(x))) for x in (bicubic, restored))
        assert after > before + decibels
        assert np.abs(restored.mean((0, 1)) - small.mean((0, 1))).max() < 0.5


def test_the_shipped_prior_gives_other_textures_and_keeps_the_composition(tiny):
    prior = TexturePrior.from_pretrained("tiny")
    prior.check_codec(tiny)
    for name in ("content-ridge.jpg", "content-mountains.jpg"):
        picture = unit(np.asarray(read(name))).float()
        latents, random = tiny.encode(picture), torch.Generator().manual_seed(0)
        first, second = (tiny.decode(vary(prior, latents, 1.0, random)) for _ in range(2))
        subtle = tiny.decode(vary(prior, latents, 0.3, random))
        plain = tiny.decode(latents)
        assert low_frequency_psnr(first, picture) > 28
        kept = [high_frequency_correlation(x, picture) for x in (plain, subtle, first)]
        assert kept[0] > kept[1] > kept[2]
        assert 18 < psnr(first, second) < 40
        assert (first.mean((2, 3)) - plain.mean((2, 3))).abs().max() < 1.5 / 255


def test_the_shipped_prior_knows_the_latents_better_than_noise(tiny):
    prior = TexturePrior.from_pretrained("tiny")
    picture = unit(np.asarray(read("content-seeds.jpg"))).float()
    assert velocity_error(prior, tiny, picture) < 1.4  # 2 for no idea


def test_the_manifest_has_the_figures_of_every_task():
    entries = {entry.task: entry for entry in read_manifest(weights_folder() / "manifest.json")}
    assert entries["denoise"].scores["psnr_kodak24_noise25"] > 31
    assert entries["upscale"].scores["psnr_kodak24_x2"] > 32
    assert entries["texture-vary"].scores["velocity_kodak24"] < 1.2
    assert entries["texture-vary"].scores["low_psnr_kodak24"] > 28
