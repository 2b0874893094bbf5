"""Two pictures side by side, in numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import picture

from pmavae.images.metrics import amplified_difference, compare_pictures, psnr, ssim


def pair() -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(picture((61, 53))), np.asarray(picture((61, 53), seed=1))


@pytest.mark.parametrize("rows", [1, 7, 50, 1000])
def test_strips_give_what_the_whole_pictures_give(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair()
    monkeypatch.setattr("pmavae.images.pixels.STRIP_PIXELS", 61 * rows)
    found = compare_pictures(a, b)
    one, other = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None].double() / 255 for x in (a, b))
    assert found.psnr == pytest.approx(float(psnr(one, other)), abs=1e-9)
    assert found.ssim == pytest.approx(float(ssim(one, other)), abs=1e-5)
    difference = b.astype(int) - a
    assert found.largest == np.abs(difference).max((0, 1)).tolist()
    assert found.shift == pytest.approx(difference.mean((0, 1)).tolist())


def test_equal_pictures() -> None:
    a, _ = pair()
    found = compare_pictures(a, a)
    assert (found.psnr, found.largest, found.shift) == (math.inf, [0, 0, 0], [0.0, 0.0, 0.0])
    assert found.ssim == pytest.approx(1)


def test_one_level_in_one_value_is_found() -> None:
    a, _ = pair()
    b = a.copy()
    b[50, 60, 2] ^= 1
    found = compare_pictures(a, b)
    assert found.largest == [0, 0, 1]
    assert found.psnr == pytest.approx(10 * math.log10(255**2 * a.size))


def test_other_sizes_are_refused() -> None:
    a, b = pair()
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_pictures(a, b[:-1])


def test_the_difference_is_amplified_and_clipped() -> None:
    a = np.full((1, 3, 3), 100, np.uint8)
    b = a.copy()
    b[0, 1], b[0, 2] = 97, 200
    shown = amplified_difference(a, b, 8)
    assert shown[0, :, 0].tolist() == [0, 24, 255]
    assert shown.dtype == np.uint8
