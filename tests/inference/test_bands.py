"""Large pictures in bands: as they are whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae import PMAVAE
from pmavae.images.pixels import ArrayRows, sixteen_bits
from pmavae.inference.encoding import encode_in_bands
from pmavae.inference.strips import (
    ENCODER_HALO,
    HALO,
    PAINT_HALO,
    fitting_rows,
    plan_bands,
    sample_bands,
    widest,
)


@pytest.fixture(scope="module")
def tiny() -> PMAVAE:
    return PMAVAE.from_pretrained("tiny")


@given(st.integers(1, 400), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_bands_cover_all_rows_once_and_reach_around_them(rows: int, height: int) -> None:
    halo = 1 + height % 3
    bands = plan_bands(rows, height, halo)
    assert [row for band in bands for row in range(band.first, band.last)] == list(range(rows))
    for band in bands:
        assert band.last - band.first <= max(1, height - 2 * halo)
        assert band.outer_first == max(0, band.first - halo)
        assert band.outer_last == min(rows, band.last + halo)
    sample = sample_bands(rows, height, halo)
    assert len({(band.last - band.first, band.outer_last - band.outer_first) for band in sample}) == 1
    assert all(0 <= band.outer_first < band.outer_last <= rows for band in sample)


def psnr(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(10 * np.log10(65535**2 / max(1e-9, np.square(a.astype(float) - b).mean())))


@pytest.mark.parametrize("amount", [0.0, 0.65], ids=["plain", "painted"])
@pytest.mark.parametrize("size", [(96, 333), (40, 250)])
def test_a_decoded_picture_is_the_same_in_bands(tiny: PMAVAE, size: tuple[int, int], amount: float) -> None:
    latents = tiny.encode(picture(size))
    z_style = latents.z_style.clone()
    z_style[:, -1] = amount
    latents = latents.replace(z_style=z_style)
    tiny.working_bytes = 2**40
    whole = tiny.decode_pixels(latents, np.uint16)
    tiny.working_bytes = 1
    assert fitting_rows(size[0], widest(tiny.decoder.stage2), 1) * 16 < size[1]
    bands = tiny.decode_pixels(latents, np.uint16)
    assert bands.shape == whole.shape and psnr(whole, bands) > 55
    # The rows at which bands meet differ no more than all others do.
    off = np.abs(whole.astype(int) - bands).mean((1, 2))
    edges = [16 * band.first for band in plan_bands(-(-size[1] // 16), 1, PAINT_HALO if amount else HALO)][1:]
    assert off[edges].mean() <= 3 * off.mean() + 1


def test_an_encoded_picture_is_the_same_in_bands(tiny: PMAVAE) -> None:
    pixels = np.asarray(picture((90, 300)))
    whole = tiny.encode(picture((90, 300)))
    posterior = encode_in_bands(tiny.encoder, ArrayRows(pixels), tiny.device, working_bytes=1)
    for name in ("z_base", "z_detail", "z_style"):
        assert (getattr(posterior, name) - getattr(whole, name)).abs().max() < 0.02
    tiny.working_bytes = 1
    assert torch.equal(tiny.encode(pixels).z_base, posterior.z_base)
    deep = tiny.encode(sixteen_bits(pixels))
    assert (deep.z_base - posterior.z_base).abs().max() < 1e-4


def test_with_all_rows_in_the_sample_bands_change_nothing(
    tiny: PMAVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmavae.inference import decoding as decoding_bands
    from pmavae.inference.strips import Band

    monkeypatch.setattr(decoding_bands, "sample_bands", lambda rows, *_: [Band(0, rows, 0, rows)])
    latents = tiny.encode(picture((48, 200)))
    tiny.working_bytes = 2**40
    whole = tiny.decode_pixels(latents, np.uint16)
    tiny.working_bytes = 1
    assert np.abs(whole.astype(int) - tiny.decode_pixels(latents, np.uint16)).max() <= 2


def test_pixels_of_several_pictures_are_refused(tiny: PMAVAE) -> None:
    latents = tiny.encode(np.stack([np.asarray(picture())] * 2))
    with pytest.raises(ValueError, match="latents of one picture, got 2"):
        tiny.decode_pixels(latents)


@torch.no_grad()
@pytest.mark.parametrize(("painted", "halo"), [(False, HALO), (True, PAINT_HALO)])
def test_what_a_decoded_band_depends_on_is_around_it(tiny: PMAVAE, painted: bool, halo: int) -> None:
    """The receptive field of the fine stages, measured."""
    from pmavae.inference.decoding import Codes, _fine
    from pmavae.inference.strips import Band, Gates

    decoder = tiny.decoder
    z_style = torch.randn(1, tiny.config.style_channels, 1, 1) * 0.1
    z_style[:, -1] = 1.0
    codes = Codes(*decoder.codes(z_style, paint=painted))
    rows = 12
    x = torch.randn(1, tiny.config.decoder_channels[1], 2 * rows, 6)
    gates, whole = Gates(), [Band(0, rows, 0, rows)]
    before = _fine(decoder, codes, x, whole, gates)
    x[:, :, 0] += 1.0
    after = _fine(decoder, codes, x, whole, gates.again())
    changed = torch.nonzero((before != after).flatten(0, 1).any(0).any(1)).max().item()
    assert 16 * (halo - 1) < changed - 7 < 16 * halo  # the row that was changed is of 8 px


@torch.no_grad()
def test_what_an_encoded_band_depends_on_is_around_it(tiny: PMAVAE) -> None:
    from pmavae.inference.encoding import _fine
    from pmavae.inference.strips import Band, Gates

    rows, gates = 8, Gates()
    pixels = torch.rand(1, 3, 16 * rows, 48)
    before = _fine(tiny.encoder, pixels, Band(0, rows, 0, rows), gates, None)
    pixels[:, :, 0] = 1 - pixels[:, :, 0]
    after = _fine(tiny.encoder, pixels, Band(0, rows, 0, rows), gates.again(), None)
    changed = torch.nonzero((before != after).flatten(0, 1).any(0).any(1)).max().item()  # rows of 8 px
    assert 8 * (changed + 1) <= 16 * ENCODER_HALO
