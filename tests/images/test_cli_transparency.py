"""What lies under transparency, and transparency of other sizes."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image

from pmavae_cli.images.metadata import fit_alpha
from pmavae_cli.images.reading import fill_hidden


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hidden_colours_do_not_matter_and_seen_ones_stay(dtype: type) -> None:
    colours = np.asarray(picture((61, 47))).astype(dtype)
    most = np.iinfo(dtype).max
    alpha = np.full(colours.shape[:2], most, dtype)
    alpha[10:30, 20:50] = 0
    alpha[30:33, 20:50] = most // 2
    other = colours.copy()
    other[alpha == 0] = most - other[alpha == 0]
    filled = fill_hidden(colours, alpha)
    assert np.array_equal(filled, fill_hidden(other, alpha)) and not np.array_equal(colours, other)
    assert np.array_equal(filled[alpha > 0], colours[alpha > 0])
    # A hidden pixel beside seen ones has a colour from among those nearby.
    near = colours[8:12, 18:24][alpha[8:12, 18:24] > 0]
    assert (filled[10, 20] >= near.min(0)).all() and (filled[10, 20] <= near.max(0)).all()


def test_a_picture_that_is_all_hidden_or_all_seen_stays_as_it_is() -> None:
    colours = np.asarray(picture())
    for value in (0, 1, 255):
        alpha = np.full(colours.shape[:2], value, np.uint8)
        assert np.array_equal(fill_hidden(colours, alpha), colours)


def test_a_dark_ground_under_transparency_does_not_darken_the_edge(pmavae: Command, here: object) -> None:
    y, x = np.mgrid[:64, :64]
    disc = (np.hypot(x - 32, y - 32) < 22).astype(np.uint8) * 255
    for name, ground in (("dark", 0), ("light", 255)):
        colours = np.where(disc[..., None] > 0, np.array([200, 120, 90]), ground).astype(np.uint8)
        Image.fromarray(np.dstack((colours, disc))).save(f"{name}.png")
        assert pmavae("upscale", f"{name}.png", "-o", f"{name}-2.png").status == 0
    with Image.open("dark-2.png") as dark, Image.open("light-2.png") as light:
        first, second = np.asarray(dark), np.asarray(light)
    assert first.shape == (128, 128, 4) and np.array_equal(first, second)
    seen = first[first[..., 3] > 0][:, :3].astype(int)
    assert np.abs(seen - (200, 120, 90)).max() <= 12


def test_alpha_fits_another_size_and_other_bits() -> None:
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 15:] = 255
    larger = fit_alpha(alpha, 60, 40, np.dtype(np.uint16))
    assert larger.shape == (40, 60) and larger.dtype == np.uint16
    assert larger.min() == 0 and larger.max() == 65535
    assert np.array_equal(fit_alpha(alpha, 30, 20, np.dtype(np.uint8)), alpha)
