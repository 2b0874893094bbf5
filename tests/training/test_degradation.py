"""What training does to clean crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import picture

from pmavae.network_configs import RESTORERS
from pmavae.training.config import DamageConfig
from pmavae.training.degradation import crop_side, damage, photon_noise, recompress, scale_of, shrink

CLEAN, NOISE, PHOTONS, JPEG, BOTH = np.eye(5)
SIDE = 48


def crops(count: int, scale: int = 1) -> np.ndarray:
    side = crop_side(SIDE, scale)
    base = np.asarray(picture((side, side)))
    return np.stack([np.roll(base, 7 * row, axis=1) for row in range(count)])


def only(kind: np.ndarray, **changes: object) -> DamageConfig:
    return replace(DamageConfig(gated=0.0, grey=0.0), shares=tuple(kind), **changes)


def damaged(config: DamageConfig, count: int = 8, scale: int = 1, step: int = 3):
    return damage(crops(count, scale), scale, config, seed=1, step=step)


def test_a_row_depends_on_nothing_but_its_number() -> None:
    clean, config = crops(6), DamageConfig()
    whole = damage(clean, 1, config, seed=4, step=9)
    part = damage(clean[2:5], 1, config, seed=4, step=9, first=2)
    for name in ("inputs", "targets", "levels", "fidelity"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[2:5])
    other = damage(clean, 1, config, seed=4, step=10)
    assert not np.array_equal(other.inputs, whole.inputs)


def test_clean_rows_are_their_own_target() -> None:
    found = damaged(only(CLEAN))
    assert np.array_equal((found.inputs * 255).round(), found.targets)
    assert not found.levels.any() and (found.fidelity == 1).all()


def test_the_level_is_the_deviation_of_the_noise() -> None:
    found = damaged(only(NOISE, rounded=0.0), count=16)
    deviations = (found.inputs * 255 - found.targets).std((1, 2, 3))
    np.testing.assert_allclose(deviations, 50 * found.levels[:, 0], rtol=0.03)
    assert not found.levels[:, 1].any()
    assert deviations.max() > 30 > 15 > deviations.min()


def test_rounded_noise_is_what_a_file_holds() -> None:
    values = damaged(only(NOISE, rounded=1.0)).inputs * 255
    assert values.min() >= 0 and values.max() <= 255
    np.testing.assert_allclose(values, values.round(), atol=1e-4)


def test_photon_noise_grows_with_the_light() -> None:
    random = np.random.default_rng(0)
    pixels = np.repeat(np.float32([40, 160]), 30_000)
    noise = photon_noise(pixels, 20, random) - pixels
    dark, light = noise[:30_000].var(), noise[30_000:].var()
    assert light / dark == pytest.approx(4, rel=0.1)
    assert noise.var() == pytest.approx(400, rel=0.05)


def test_black_and_white_has_one_noise_for_all_channels() -> None:
    found = damaged(only(NOISE, grey=1.0))
    assert (np.ptp(found.inputs, axis=-1) == 0).all() and (np.ptp(found.targets, axis=-1) == 0).all()


def test_the_second_level_is_what_jpeg_took_away() -> None:
    found = damaged(only(JPEG), count=24)
    errors = np.abs(found.inputs * 255 - found.targets).mean((1, 2, 3))
    bad = found.levels[:, 1] > np.median(found.levels[:, 1])
    assert errors[bad].mean() > 1.3 * errors[~bad].mean()
    assert found.levels[:, 1].min() >= 0.05 and found.levels[:, 1].max() <= 0.9


def test_a_moved_grid_moves_the_target_with_it() -> None:
    found = damaged(only(JPEG, moved_grid=1.0, jpeg=(95, 95)))
    values = found.inputs * 255

    def error(shift: int, axis: int) -> float:
        return float(np.abs(np.roll(values, shift, axis) - found.targets).mean())

    assert all(error(shift, axis) > 1.5 * error(0, 1) for shift in (-1, 1) for axis in (1, 2))
    whole = crops(8)
    assert any(not np.array_equal(t, c[:SIDE, :SIDE]) for t, c in zip(found.targets, whole, strict=True))


@pytest.mark.parametrize("scale", [2, 4])
def test_a_shrunk_row_has_a_target_of_full_size(scale: int) -> None:
    found = damaged(only(CLEAN), scale=scale)
    assert found.inputs.shape == (8, SIDE, SIDE, 3)
    assert found.targets.shape == (8, scale * SIDE, scale * SIDE, 3)
    assert np.array_equal((found.inputs[3] * 255).round(), shrink(found.targets[3], scale))


def test_shrinking_keeps_means_and_drops_what_is_too_fine() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = 255  # a checkerboard finer than the result can show
    small = shrink(pixels, 2)
    assert small.shape == (32, 32, 3)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127.5).max() <= 3


def test_recompressing_halves_colour_only_where_it_says_so() -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[:, ::2, 0] = 255
    stored = [recompress(red, 95, halve=halve)[0] for halve in (False, True)]
    contrast = [np.ptp(pixels[16, 8:24, 0].astype(int)) for pixels in stored]
    assert contrast[0] > 200 > contrast[1]


def test_every_scale_gets_its_turn() -> None:
    config = RESTORERS["upscale", "tiny"]
    drawn = [scale_of(config, 0, step) for step in range(64)]
    assert set(drawn) == {2, 4} and 16 < drawn.count(2) < 48
    assert drawn == [scale_of(config, 0, step) for step in range(64)]
