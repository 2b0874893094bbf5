"""PSNR, SSIM and the perceptual distance, against their definitions and another implementation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae.images.metrics import feature_distance, psnr, ssim


def pair(seed, noise):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 3, 24, 31, generator=generator, dtype=torch.float64)
    b = (a + noise * torch.randn(a.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return a, b


def test_psnr_of_a_known_error():
    a = torch.zeros(2, 3, 16, 16)
    b = a.clone()
    b[1] += 0.1
    scores = psnr(a, b)
    assert math.isinf(scores[0]) and float(scores[1]) == pytest.approx(20.0, abs=1e-4)


@given(st.integers(0, 1000), st.floats(0.01, 0.5))
@settings(max_examples=25, deadline=None)
def test_both_are_symmetric_and_best_for_equal_pictures(seed, noise):
    a, b = pair(seed, noise)
    for metric in (psnr, ssim):
        torch.testing.assert_close(metric(a, b), metric(b, a))
        assert (metric(a, b) < metric(a, a)).all()
    torch.testing.assert_close(ssim(a, a), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_ssim_is_that_of_scikit_image(noise):
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = pair(7, noise)
    for x, y, score in zip(a, b, ssim(a, b), strict=True):
        channels = []
        for p, q in zip(x.numpy(), y.numpy(), strict=True):
            _, full = reference(
                p, q, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
            )
            channels.append(np.mean(full[5:-5, 5:-5]))  # where a whole window lies within the picture
        assert float(score) == pytest.approx(np.mean(channels), abs=1e-6)


def test_the_perceptual_distance_is_per_picture_and_ignores_the_scale_of_features():
    torch.manual_seed(0)
    maps = [torch.randn(2, 8, 6, 6), torch.randn(2, 16, 3, 3)]
    assert torch.allclose(feature_distance(maps, [3 * x for x in maps]), torch.zeros(2), atol=1e-6)
    half = [torch.stack((x[0], -x[1])) for x in maps]
    assert torch.allclose(feature_distance(maps, half), torch.tensor([0.0, 4.0]), atol=1e-5)
