"""The decoder's fine stages in bf16: close to float32, the same in strips, and off where a user says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, picture
from torch import Tensor

from pmavae import PMAVAE
from pmavae.images.pixels import Pixels, to_pixels
from pmavae.inference import fused
from pmavae.inference.engine import decode
from pmavae.inference.fused import conv_alone, decoding_dtype, fast_dtype, means_of, set_precision, sums_of
from pmavae.inference.offload import Budget

CPU = torch.device("cpu")

computed = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor cannot compute in bf16"
)


@pytest.fixture(scope="module")
def tiny() -> PMAVAE:
    return PMAVAE.from_pretrained("tiny")


@pytest.fixture(autouse=True)
def usual_precision() -> Iterator[None]:
    yield
    set_precision("auto")


@pytest.fixture(scope="module")
def latents(tiny: PMAVAE) -> tuple[Tensor, Tensor, Tensor]:
    z = tiny.encode(picture((96, 64)))
    return z.z_base, z.z_detail, z.z_style


@torch.no_grad()
def decoded(model: PMAVAE, latents: tuple[Tensor, ...], dtype: torch.dtype | None = torch.bfloat16) -> Tensor:
    made = decode(model.decoder, *latents, paint=False, fine=dtype)
    assert made.dtype == torch.float32
    return made[0].clamp(0, 1)


def psnr(made: Pixels, original: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.square(made.astype(float) - original).mean()))


@computed
def test_bf16_costs_no_quality(tiny: PMAVAE, latents: tuple[Tensor, ...]) -> None:
    original = np.asarray(picture((96, 64)))
    wide, narrow = decoded(tiny, latents, None), decoded(tiny, latents)
    assert 0 < (wide - narrow).abs().max() < 1 / 255  # 0: it was not in bf16
    levels = np.abs(to_pixels(wide).astype(int) - to_pixels(narrow))
    assert levels.max() <= 1 and (levels > 0).mean() < 0.1
    assert abs(psnr(to_pixels(wide), original) - psnr(to_pixels(narrow), original)) < 0.1


@computed
def test_what_is_flat_stays_flat_and_smooth(tiny: PMAVAE) -> None:
    """A sky has steps of a level in bf16 where it has them in float32, and no others."""
    ramp = np.linspace(100, 140, 96)[None, :, None].repeat(64, 0) + np.array([0.0, 10.0, 30.0])
    z = tiny.encode(np.ascontiguousarray(ramp.round().astype(np.uint8)))
    wide, narrow = (
        to_pixels(decoded(tiny, (z.z_base, z.z_detail, z.z_style), dtype)).astype(int)
        for dtype in (None, torch.bfloat16)
    )
    steps = [np.abs(np.diff(pixels, axis=1)) for pixels in (wide, narrow)]
    assert steps[1].max() <= steps[0].max() + 1
    assert abs((steps[1] == 0).mean() - (steps[0] == 0).mean()) < 0.02
    assert abs((wide - narrow).mean()) < 0.02


@computed
def test_strips_are_the_whole(
    tiny: PMAVAE, latents: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = decoded(tiny, latents)
    monkeypatch.setattr(fused, "STRIP_BYTES", 1 << 16)
    monkeypatch.setattr(fused, "SUM_BYTES", 1 << 10)
    assert (decoded(tiny, latents) - whole).abs().max() < 2e-3  # gates are added up in another order


def test_sums_of_narrow_maps_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    x = (torch.rand(2, 5, 40, 30) + 1).bfloat16().contiguous(memory_format=torch.channels_last)
    expected = x.double().sum((2, 3))
    monkeypatch.setattr(fused, "SUM_BYTES", 4096)
    assert sums_of(x).dtype == torch.float32
    assert ((sums_of(x) - expected) / expected).abs().max() < 1e-6  # in bf16: 2e-3
    assert ((means_of(x) * 1200 - expected) / expected).abs().max() < 1e-6
    assert torch.equal(means_of(x.double()), x.double().mean((2, 3)))


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_alone_is_torchs(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = torch.nn.Conv2d(8, 12, kernel, padding=kernel // 2)
    x = torch.randn(2, 8, 7, 9)
    assert (conv_alone(x, conv) - conv(x)).abs().max() < 1e-5
    monkeypatch.setattr(fused, "fused", lambda: None)
    assert (conv_alone(x, conv) - conv(x)).abs().max() < 1e-5


def test_a_user_can_have_float32_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert fast_dtype(CPU) == torch.bfloat16
    monkeypatch.setattr(fused, "fused", lambda: object())
    assert decoding_dtype(CPU, np.uint8, painted=False) == torch.bfloat16
    assert decoding_dtype(CPU, np.uint16, painted=False) is None
    assert decoding_dtype(CPU, np.uint8, painted=True) is None
    assert decoding_dtype(torch.device("meta"), np.uint8, painted=False) is None
    set_precision("float32")
    assert fast_dtype(CPU) is None and decoding_dtype(CPU, np.uint8, painted=False) is None
    set_precision("auto")
    assert fast_dtype(CPU) == torch.bfloat16
    monkeypatch.setattr(fused, "fused", lambda: None)
    assert decoding_dtype(CPU, np.uint8, painted=False) is None
    with pytest.raises(ValueError, match="no precision 'int8', only auto and float32"):
        set_precision("int8")  # type: ignore[arg-type]


def test_without_bf16_instructions_all_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert fast_dtype(CPU) is None and decoding_dtype(CPU, np.uint8, painted=False) is None


def test_the_command_line_turns_it_off(
    tmp_path: Path, weights: str, pmavae: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    picture((32, 32)).save(tmp_path / "in.png")
    found = []
    for precision in ("float32", "auto"):
        arguments = [tmp_path / "in.png", "-o", tmp_path / f"{precision}.safetensors", "--weights", weights]
        assert pmavae("encode", *arguments, "--precision", precision).status == 0
        found.append(fast_dtype(CPU))
    assert found == [None, torch.bfloat16]
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("float32", "auto")]
    assert files[0] == files[1]  # latents never depend on the processor


@computed
@pytest.mark.parametrize("budget", [Budget(1 << 40), Budget(1)], ids=["whole", "strips"])
def test_only_unpainted_pixels_of_8_bits_are_decoded_in_bf16(
    tiny: PMAVAE, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(tiny, "budget", budget)
    z = tiny.encode(picture((96, 250)))
    painted = z.z_style.clone()
    painted[:, -1] = 0.5
    for latents, dtype, apart in (
        (z, np.uint8, 1),
        (z, np.uint16, 0),
        (z.replace(z_style=painted), np.uint8, 0),
    ):
        set_precision("float32")
        wide = tiny.decode_pixels(latents, dtype).astype(int)
        set_precision("auto")
        narrow = tiny.decode_pixels(latents, dtype)
        assert np.abs(wide - narrow).max() == apart
        assert np.array_equal(narrow, tiny.decode_pixels(latents, dtype))


@computed
def test_in_bf16_bands_are_the_whole(tiny: PMAVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    z = tiny.encode(picture((96, 333)))
    monkeypatch.setattr(tiny, "budget", Budget(1 << 40))
    whole = tiny.decode_pixels(z)
    monkeypatch.setattr(tiny, "budget", Budget(1))
    assert psnr(tiny.decode_pixels(z), whole) > 55
