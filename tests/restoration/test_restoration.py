"""The restoration networks: what an untrained one gives, how far it sees, tiles, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_config import CONFIG
from small_restorers import SMALL, network

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.inference.offload import Budget
from pmavae.network_configs import RESTORERS, RestorationConfig
from pmavae.pretrained.weights import save_weights
from pmavae.restoration.levels import Levels
from pmavae.restoration.network import Restorer
from pmavae.restoration.tiles import default_tile, plan_tiles, restore_pixels, restore_whole


def test_an_untrained_denoiser_gives_its_input_back() -> None:
    pixels = np.asarray(picture((45, 39)))
    assert np.array_equal(restore_pixels(Restorer(SMALL["denoise"]), pixels, Levels(25, 10)), pixels)


@pytest.mark.parametrize("scale", [2, 4])
def test_an_untrained_upscaler_is_bicubic(scale: int) -> None:
    small = picture((45, 39))
    expected = np.asarray(small.resize((45 * scale, 39 * scale), Image.Resampling.BICUBIC))
    found = restore_pixels(Restorer(SMALL["upscale"]), np.asarray(small), Levels(), scale=scale)
    inner = slice(8 * scale, -8 * scale)  # the sides are padded to a multiple of 4, which Pillow does not do
    assert np.abs(found.astype(int) - expected)[inner, inner].max() <= 1


def test_without_fidelity_an_untrained_denoiser_keeps_what_is_coarse() -> None:
    pixels = torch.from_numpy(np.asarray(picture((64, 48))) / 255).permute(2, 0, 1)[None].float()
    model = Restorer(SMALL["denoise"])
    none, half, full = (restore_whole(model, pixels, Levels(), fidelity=f) for f in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (none + full) / 2)
    torch.testing.assert_close(none.mean((2, 3)), full.mean((2, 3)), atol=0.01, rtol=0)
    assert (none[..., 1:] - none[..., :-1]).abs().mean() < 0.5 * (full[..., 1:] - full[..., :-1]).abs().mean()


@pytest.mark.parametrize("task", ["denoise", "upscale"])
def test_outputs_depend_on_pixels_as_far_as_the_margin_has_it_and_no_further(task: str) -> None:
    model, config = network(task), SMALL[task]
    side = 2 * config.margin + 8 * config.multiple
    x = torch.rand(1, 3, side, side, requires_grad=True)
    reached = 0
    for scale in config.scales:
        y = model(x, torch.zeros(1, 2), scale=scale)
        for offset in range(config.multiple):
            at = side // 2 + offset
            (gradient,) = torch.autograd.grad(y[0, :, scale * at, scale * at].sum(), x, retain_graph=True)
            seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
            reached = max(reached, at - int(seen.min()), int(seen.max()) - at)
    assert reached == config.reach
    assert config.reach <= config.margin < config.reach + config.multiple


@pytest.mark.parametrize("config", RESTORERS.values(), ids=lambda c: f"{c.task}-{c.preset}")
def test_every_parameter_of_a_released_shape_learns(config: RestorationConfig) -> None:
    model = Restorer(config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    x = torch.rand(1, 3, 16, 16)
    sum(model(x, torch.ones(1, 2), scale=scale).square().mean() for scale in config.scales).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@settings(max_examples=25, deadline=None)
@given(
    task=st.sampled_from(["denoise", "upscale"]),
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    tile=st.integers(8, 70),
)
def test_tiles_leave_no_trace(task: str, height: int, width: int, tile: int) -> None:
    model = network(task)
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    whole = restore_pixels(model, pixels, Levels(20, 40), tile=0)
    tiled = restore_pixels(model, pixels, Levels(20, 40), tile=tile)
    # Kernels round differently at another size, so that a value next to a half may go the other way.
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert (whole != tiled).mean() < 0.005


@settings(deadline=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    side=st.integers(24, 800),
    margin=st.integers(0, 12).map(lambda n: 8 * n),
)
def test_tiles_cover_a_picture_once(height: int, width: int, side: int, margin: int) -> None:
    tiles = plan_tiles(height, width, side, margin, 8)
    areas = [(t.rows.stop - t.rows.start) * (t.columns.stop - t.columns.start) for t in tiles]
    assert sum(areas) == height * width
    assert len({(t.rows.start, t.columns.start) for t in tiles}) == len(tiles)
    for t in tiles:
        for part, around, length in ((t.rows, t.outer_rows, height), (t.columns, t.outer_columns, width)):
            assert part.start % 8 == around.start % 8 == 0
            assert 0 < part.stop - part.start <= max(8, -(-side // 8) * 8)
            assert around.start == max(0, part.start - margin)
            assert around.stop == min(length, part.stop + margin)


def test_progress_counts_every_tile() -> None:
    seen: list[tuple[int, int]] = []
    pixels = np.asarray(picture((80, 60)))
    restore_pixels(
        network("denoise"), pixels, Levels(10), tile=32, progress=lambda *parts: seen.append(parts)
    )
    assert seen == [(i, 6) for i in range(1, 7)]


def test_the_tile_of_every_released_shape_is_worth_its_margin() -> None:
    for config in RESTORERS.values():
        assert default_tile(config, Budget()) > 2 * config.margin
        assert default_tile(config, Budget()) % config.multiple == 0


def test_a_scale_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match="no scale 4"):
        restore_whole(network("denoise"), torch.rand(1, 3, 16, 16), Levels(), scale=4)


def test_weights_go_to_a_file_and_back(tmp_path) -> None:
    model = network("upscale")
    model.save_pretrained(tmp_path, "up-1")
    loaded = Restorer.from_pretrained(tmp_path, task="upscale")
    assert loaded.config == model.config and loaded.weights_id == "up-1"
    x = torch.rand(1, 3, 24, 24)
    torch.testing.assert_close(
        restore_whole(loaded, x, Levels()), restore_whole(model, x, Levels()), atol=2e-3, rtol=0
    )


def test_weights_of_another_task_are_refused(tmp_path) -> None:
    network("upscale").save_pretrained(tmp_path / "up", "up-1")
    PMAVAE(CONFIG).save_pretrained(tmp_path / "vae", "vae-1")
    with pytest.raises(WeightsError, match="of the task upscale, not denoise"):
        Restorer.from_pretrained(tmp_path / "up", task="denoise")
    with pytest.raises(WeightsError, match="of the task base, not denoise"):
        Restorer.from_pretrained(tmp_path / "vae", task="denoise")
    with pytest.raises(WeightsError, match="no autoencoder: use them with pmavae upscale"):
        PMAVAE.from_pretrained(tmp_path / "up")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": [3]}, "not among 1, 2 and 4"),
        ({"scales": []}, "scales"),
        ({"stem_stride": 8}, "neither 1 nor 2"),
        ({"channels": [8, 8]}, "channels"),
        ({"channels": [8, 8, 10**6]}, "channels"),
        ({"extra": 1}, "unknown configuration fields: extra"),
        ({"blocks": [1, 1, 2]}, "does not fit"),
    ],
)
def test_a_damaged_configuration_is_refused_by_name(tmp_path, change, message) -> None:
    class Damaged:
        def to_dict(self):
            return SMALL["denoise"].to_dict() | change

    save_weights(tmp_path / "model.safetensors", network("denoise").state_dict(), Damaged(), "bad")
    with pytest.raises(WeightsError, match=message) as caught:
        Restorer.from_pretrained(tmp_path, task="denoise")
    assert "model.safetensors" in str(caught.value)


def test_levels_grow_with_the_strength() -> None:
    levels = Levels(noise=20, jpeg=60)
    assert levels.times(0).none
    assert levels.times(0.5) == Levels(10, 80)
    assert levels.times(3) == Levels(60, 1)
    assert levels.times(3).within() == Levels(55, 10)
    assert Levels().times(2).none and Levels().describe() == "no noise, no trace of JPEG"
