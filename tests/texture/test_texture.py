"""Texture variation: what is kept exactly, what varies, and what a prior refuses."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_config import CONFIG
from small_priors import codec, prior

from pmavae import Latents
from pmavae.errors import WeightsError
from pmavae.latents import expected_shapes
from pmavae.restoration.network import Restorer
from pmavae.texture.coefficients import Texture, surface_share, take_apart
from pmavae.texture.network import TexturePrior, encoder_fingerprint
from pmavae.texture.sampling import fit_region, vary
from pmavae.training.objectives.texture import (
    high_frequency_correlation,
    low_frequency_psnr,
)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(height: int = 80, width: int = 112, seed: int = 0) -> Latents:
    """All surface: as strong everywhere."""
    shapes = expected_shapes(CONFIG, height, width)
    made = {name: torch.randn(1, *shapes[name], generator=random(seed)) for name in ("z_base", "z_detail")}
    style = 0.3 * torch.randn(1, *shapes["z_style"], generator=random(seed))
    return Latents(z_style=style, height=height, width=width, **made)


@pytest.fixture(scope="module")
def model() -> TexturePrior:
    return prior(codec())


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    scale=st.sampled_from([0.0, 1e-6, 1e-2, 1.0, 50.0]),
    seed=st.integers(0, 100),
)
def test_a_texture_is_put_together_as_it_was(rows: int, columns: int, scale: float, seed: int) -> None:
    base = torch.randn(2, 4, rows, columns, generator=random(seed))
    detail = scale * torch.randn(2, 2, 2 * rows, 2 * columns, generator=random(seed + 1))
    texture = take_apart(base, detail)
    torch.testing.assert_close(texture.join(), detail, atol=1e-3, rtol=1e-3)
    other = replace(texture, pattern=torch.randn(texture.pattern.shape, generator=random(seed + 2))).join()
    again = take_apart(base, other)
    torch.testing.assert_close(again.strength, texture.strength, atol=2e-3, rtol=2e-2)


def test_a_smooth_gradient_has_no_texture() -> None:
    ramp = torch.linspace(-2, 2, 16).expand(1, 2, 16, 16).contiguous()
    base = torch.nn.functional.avg_pool2d(ramp, 2)
    detail = ramp - torch.nn.functional.interpolate(base, scale_factor=2.0)
    inner = take_apart(base, detail).strength[..., 2:-2, 2:-2]
    assert inner.max() < 0.01 < detail.square().mean().sqrt()


def test_edges_and_flat_cells_are_no_surface() -> None:
    strength = torch.full((1, 2, 5, 9), 0.02)
    strength[..., 4] = 1.0  # an edge across something flat
    strength[..., 6:] = 1.0  # a surface
    empty = torch.zeros(1)
    share = surface_share(Texture(empty, strength, empty, empty))[0, 0]
    assert (share[:, :5] == 0).all() and (share[:, 7:] == 1).all()


def test_amount_0_is_the_same_latents(model: TexturePrior) -> None:
    before = latents()
    assert torch.equal(vary(model, before, 0.0, random()).z_detail, before.z_detail)


@settings(deadline=None, max_examples=15)
@given(height=st.integers(16, 70), width=st.integers(16, 70), amount=st.floats(0.01, 1))
def test_only_z_detail_changes_at_any_size(height: int, width: int, amount: float) -> None:
    before = latents(height, width)
    after = vary(prior(codec()), before, amount, random())
    assert after.z_base is before.z_base and after.z_style is before.z_style
    assert after.z_detail.shape == before.z_detail.shape and after.z_detail.isfinite().all()
    assert (after.height, after.width) == (height, width)


def test_more_amount_is_more_change(model: TexturePrior) -> None:
    before = latents()
    changes = [
        float((vary(model, before, amount, random()).z_detail - before.z_detail).square().mean())
        for amount in (0.05, 0.3, 0.6, 1.0)
    ]
    assert 0 < changes[0] < 0.02 and changes == sorted(changes)


def test_the_same_seed_gives_the_same_bytes_and_variants_differ(model: TexturePrior) -> None:
    before = latents()
    generator = random(7)
    several = [vary(model, before, 0.8, generator).z_detail for _ in range(3)]
    again = random(7)
    assert all(torch.equal(vary(model, before, 0.8, again).z_detail, z) for z in several[:2])
    for i in range(3):
        for j in range(i):
            assert (several[i] - several[j]).abs().mean() > 0.1
    assert not torch.equal(vary(model, before, 0.8, random(8)).z_detail, several[0])


def test_outside_the_region_nothing_changes(model: TexturePrior) -> None:
    before = latents(90, 120)
    region = torch.zeros(90, 120)
    region[:, 64:] = 1
    region[:, 96:] = 0.5
    full = vary(model, before, 1.0, random()).z_detail - before.z_detail
    change = vary(model, before, 1.0, random(), region).z_detail - before.z_detail
    assert not change[..., :8].any()
    assert change[..., 8:12].abs().mean() > 0.3
    soft, hard = (float(x[..., 12:15].square().mean()) for x in (change, full))
    assert 0 < soft < 0.8 * hard


def test_a_black_region_is_the_same_latents_and_costs_no_draws(model: TexturePrior) -> None:
    before, generator = latents(), random()
    kept = vary(model, before, 1.0, generator, torch.zeros(80, 112))
    assert torch.equal(kept.z_detail, before.z_detail)
    reference = random()
    vary(model, before, 1.0, reference)
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=reference))


def test_what_cannot_be_is_refused(model: TexturePrior) -> None:
    for amount in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"outside 0\.\.1"):
            vary(model, latents(), amount, random())
    with pytest.raises(ValueError, match=r"region has 80×112 px and the picture 112×80"):
        vary(model, latents(), 1.0, random(), torch.ones(112, 80))


@pytest.mark.parametrize("size", [(60, 80), (30, 40), (120, 160), (59, 79), (61, 80)])
def test_a_mask_of_the_same_proportions_is_scaled(size: tuple[int, int]) -> None:
    mask = np.zeros(size, np.uint8)
    mask[:, size[1] // 2 :] = 255
    region = fit_region(mask, 60, 80)
    assert region.shape == (60, 80) and region.min() == 0 and region.max() == 1
    assert not region[:, :36].any() and (region[:, 44:] == 1).all()


def test_a_mask_of_other_proportions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the mask has 80×60 px and the picture 60×80"):
        fit_region(np.zeros((60, 80), np.uint8), 80, 60)


def test_the_paint_amount_is_not_what_a_prior_knows(model: TexturePrior) -> None:
    before = latents()
    painted = before.z_style.clone()
    painted[:, -1] = 1
    a, b = (vary(model, before.replace(z_style=z), 1.0, random()).z_detail for z in (before.z_style, painted))
    assert torch.equal(a, b)


def test_weights_are_tied_to_the_encoder_not_to_the_decoder(tmp_path) -> None:
    own, other = codec(), codec(seed=1)
    prior(own).save_pretrained(tmp_path, "test-prior")
    loaded = TexturePrior.from_pretrained(tmp_path)
    with torch.no_grad():
        own.decoder.out[0].weight.add_(1)
    loaded.check_codec(own)
    own.save_pretrained(tmp_path / "codec", "test-codec")
    loaded.check_codec(type(own).from_pretrained(tmp_path / "codec"))
    other.weights_id = "other-codec"
    with pytest.raises(WeightsError, match=r"prior test-prior .* autoencoder other-codec"):
        loaded.check_codec(other)
    assert encoder_fingerprint(own.encoder) != encoder_fingerprint(other.encoder)


def test_weights_of_another_kind_are_refused(tmp_path) -> None:
    own = codec()
    own.save_pretrained(tmp_path / "codec", "test-codec")
    prior(own).save_pretrained(tmp_path / "prior", "test-prior")
    with pytest.raises(WeightsError, match="of the task base, not texture-vary"):
        TexturePrior.from_pretrained(tmp_path / "codec")
    with pytest.raises(WeightsError, match="texture-vary"):
        type(own).from_pretrained(tmp_path / "prior")
    with pytest.raises(WeightsError, match="not denoise"):
        Restorer.from_pretrained(tmp_path / "prior", task="denoise")
    narrow = prior(own)
    narrow.config = replace(narrow.config, width=8)
    narrow.save_pretrained(tmp_path / "narrow", "test-narrow")
    with pytest.raises(WeightsError, match="does not fit"):
        TexturePrior.from_pretrained(tmp_path / "narrow")


def test_scores_tell_composition_from_texture() -> None:
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    slow = 0.5 + 0.2 * torch.sin(x / 30) * torch.cos(y / 25)
    textures = [0.1 * torch.randn(96, 96, generator=random(seed)) for seed in (0, 1)]
    a, b = ((slow + texture).expand(1, 3, 96, 96) for texture in textures)
    assert low_frequency_psnr(a, b) > 35 > low_frequency_psnr(a, b + 0.05)
    assert abs(high_frequency_correlation(a, b)) < 0.1
    assert high_frequency_correlation(a, a * 0.5 + 0.1) == pytest.approx(1)


def test_patches_are_compared_as_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    texture_vary = import_module("texture_vary")
    feature_statistics, frechet_distance = texture_vary.feature_statistics, texture_vary.frechet_distance
    field = torch.randn(1, 5, 40, 40, generator=random())
    reference = feature_statistics([field])
    moved = frechet_distance(feature_statistics([field.roll((7, 11), (2, 3))]), reference)
    assert moved == pytest.approx(0, abs=1e-6)
    distances = [
        frechet_distance(feature_statistics([s * field + m]), reference) for s, m in ((2, 0), (1, 3))
    ]
    assert distances[0] == pytest.approx(1, abs=0.05)  # (2 − 1)² of the deviations, over the variance
    assert distances[1] == pytest.approx(9, abs=0.3)
