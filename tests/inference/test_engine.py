"""Large pictures in strips: as they are whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae import PMAVAE
from pmavae.images.pixels import ArrayRows, sixteen_bits
from pmavae.inference import engine
from pmavae.inference.engine import (
    ENCODER_HALO,
    HALO,
    PAINT_HALO,
    Gates,
    Strip,
    encode_rows,
    plan_strips,
    sample_strips,
    widest,
)
from pmavae.inference.offload import Budget


@pytest.fixture(scope="module")
def tiny() -> PMAVAE:
    return PMAVAE.from_pretrained("tiny")


@given(st.integers(1, 400), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_strips_cover_all_rows_once_and_reach_around_them(rows: int, height: int) -> None:
    halo = 1 + height % 3
    strips = plan_strips(rows, height, halo)
    assert [row for strip in strips for row in range(strip.first, strip.last)] == list(range(rows))
    for strip in strips:
        assert strip.last - strip.first <= max(1, height - 2 * halo)
        assert strip.outer_first == max(0, strip.first - halo)
        assert strip.outer_last == min(rows, strip.last + halo)
    sample = sample_strips(rows, height, halo)
    assert len({(strip.last - strip.first, strip.outer_last - strip.outer_first) for strip in sample}) == 1
    assert all(0 <= strip.outer_first < strip.outer_last <= rows for strip in sample)


def psnr(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(10 * np.log10(65535**2 / max(1e-9, np.square(a.astype(float) - b).mean())))


@pytest.mark.parametrize("amount", [0.0, 0.65], ids=["plain", "painted"])
@pytest.mark.parametrize("size", [(96, 333), (40, 250)])
def test_a_decoded_picture_is_the_same_in_strips(tiny: PMAVAE, size: tuple[int, int], amount: float) -> None:
    latents = tiny.encode(picture(size))
    z_style = latents.z_style.clone()
    z_style[:, -1] = amount
    latents = latents.replace(z_style=z_style)
    tiny.budget = Budget(2**40)
    whole = tiny.decode_pixels(latents, np.uint16)
    tiny.budget = Budget(1)
    assert Budget(1).rows(size[0], widest(tiny.decoder.stage2)) * 16 < size[1]
    strips = tiny.decode_pixels(latents, np.uint16)
    assert strips.shape == whole.shape and psnr(whole, strips) > 55
    # The rows at which strips meet differ no more than all others do.
    off = np.abs(whole.astype(int) - strips).mean((1, 2))
    edges = [16 * strip.first for strip in plan_strips(-(-size[1] // 16), 1, PAINT_HALO if amount else HALO)][
        1:
    ]
    assert off[edges].mean() <= 3 * off.mean() + 1


def test_an_encoded_picture_is_the_same_in_strips(tiny: PMAVAE) -> None:
    pixels = np.asarray(picture((90, 300)))
    whole = tiny.encode(picture((90, 300)))
    posterior = encode_rows(tiny.encoder, ArrayRows(pixels), tiny.device, Budget(1))
    for name in ("z_base", "z_detail", "z_style"):
        assert (getattr(posterior, name) - getattr(whole, name)).abs().max() < 0.02
    tiny.budget = Budget(1)
    assert torch.equal(tiny.encode(pixels).z_base, posterior.z_base)
    deep = tiny.encode(sixteen_bits(pixels))
    assert (deep.z_base - posterior.z_base).abs().max() < 1e-4


def test_with_all_rows_in_the_sample_strips_change_nothing(
    tiny: PMAVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "sample_strips", lambda rows, *_: [Strip(0, rows, 0, rows)])
    latents = tiny.encode(picture((48, 200)))
    tiny.budget = Budget(2**40)
    whole = tiny.decode_pixels(latents, np.uint16)
    tiny.budget = Budget(1)
    assert np.abs(whole.astype(int) - tiny.decode_pixels(latents, np.uint16)).max() <= 2


def test_pixels_of_several_pictures_are_refused(tiny: PMAVAE) -> None:
    latents = tiny.encode(np.stack([np.asarray(picture())] * 2))
    with pytest.raises(ValueError, match="latents of one picture, got 2"):
        tiny.decode_pixels(latents)


@torch.no_grad()
@pytest.mark.parametrize(("painted", "halo"), [(False, HALO), (True, PAINT_HALO)])
def test_what_a_decoded_strip_depends_on_is_around_it(tiny: PMAVAE, painted: bool, halo: int) -> None:
    """The receptive field of the fine stages, measured."""
    decoder = tiny.decoder
    z_style = torch.randn(1, tiny.config.style_channels, 1, 1) * 0.1
    z_style[:, -1] = 1.0
    codes = decoder.codes(z_style, paint=painted)
    rows = 12
    x = torch.randn(1, tiny.config.decoder_channels[1], 2 * rows, 6)
    whole, linear = [Strip(0, rows, 0, rows)], torch.zeros(1, 3, 16 * rows, 48)
    gates = Gates(whole, rows)
    before = engine._decode_fine(decoder, codes, x, linear.clone(), gates, whole)
    x[:, :, 0] += 1.0
    after = engine._decode_fine(decoder, codes, x, linear, gates.again(), whole)
    changed = torch.nonzero((before != after).flatten(0, 1).any(0).any(1)).max().item()
    assert 16 * (halo - 1) < changed - 7 < 16 * halo  # the row that was changed is of 8 px


@torch.no_grad()
def test_what_an_encoded_strip_depends_on_is_around_it(tiny: PMAVAE) -> None:
    rows = 8
    gates = Gates([Strip(0, rows, 0, rows)], rows)
    pixels = torch.rand(1, 3, 16 * rows, 48)
    before = engine._encode_fine(tiny.encoder, pixels, gates)
    pixels[:, :, 0] = 1 - pixels[:, :, 0]
    after = engine._encode_fine(tiny.encoder, pixels, gates.again())
    changed = torch.nonzero((before != after).flatten(0, 1).any(0).any(1)).max().item()  # rows of 8 px
    assert 8 * (changed + 1) <= 16 * ENCODER_HALO
