"""Large pictures take little memory beyond their pixels, and come out as if they were computed at once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from small_restorers import untrained
from test_inference import shaken
from torch import nn

from pmavae.images.pixels import eight_bits, luma
from pmavae.inference import offload
from pmavae.inference.layers import forward
from pmavae.model import PaintBlock, ParallelMambaBlock
from pmavae.network_configs import LITE0
from pmavae.restoration import tiles
from pmavae.restoration.levels import Levels
from pmavae.restoration.tiles import restore_pixels
from pmavae.ss2d import SS2D
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.style_transfer.painting import Refining, in_strips, resized, resized_in_strips
from pmavae.style_transfer.repainting import Keep, repaint_by_steps
from pmavae_cli import options
from pmavae_cli.images.codecs import png_bytes
from pmavae_cli.images.metadata import Extras
from pmavae_cli.images.reading import _eight, fill_hidden
from pmavae_cli.main import main
from pmavae_cli.options import SizeType, budget

SIZES = [(40, 24), (23, 9), (5, 31)]


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("styled", [False, True])
def test_blocks_are_the_same_in_strips(
    size: tuple[int, int], styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dim = 8 if styled else 0
    mamba = ParallelMambaBlock(16, mlp_ratio=2.0, se_reduction=4, d_state=1, style_dim=dim)
    blocks: list[tuple[nn.Module, tuple[torch.Tensor, ...]]] = [
        (mamba, (torch.randn(1, 8),) if styled else ()),
        (PaintBlock(16, 8, 5), (torch.randn(1, 8), torch.full((1, 1, 1, 1), 0.4))),
    ]
    x = torch.randn(1, 16, *size)
    for block, codes in blocks:
        shaken(block)
        whole = forward(block, x, *codes)
        with monkeypatch.context() as patch:
            patch.setattr("pmavae.inference.fused.STRIP_BYTES", 1)
            rows = forward(block, x, *codes)
            patch.setattr("pmavae.inference.fused.STRIP_BYTES", 7 * size[1] * 32 * 4)
            strips = forward(block, x, *codes)
        assert (rows - whole).abs().max() < 1e-5 * whole.abs().max()
        assert (strips - whole).abs().max() < 1e-5 * whole.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 40])
def test_the_scan_is_the_same_in_chunks_of_lines(
    size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = shaken(SS2D(channels))
    u = 2 * torch.randn(2, *size, channels)
    monkeypatch.setattr("pmavae.scan.selective.SMALL_SIDE", 0)
    whole = module.selective_scan(u)
    monkeypatch.setattr("pmavae.scan.selective_cpu.CHUNK_BYTES", 7 * size[1] * channels * 2 * 4)
    assert (module.selective_scan(u) - whole).abs().max() < 1e-5 * whole.abs().max()
    assert np.isfinite(whole.numpy()).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_is_made_smaller_alike_in_strips(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (61, 90, 3), dtype)
    whole = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / np.iinfo(dtype).max
    monkeypatch.setattr("pmavae.images.pixels.STRIP_PIXELS", 90 * 7)
    cpu = torch.device("cpu")
    assert len(list(in_strips(pixels, cpu))) == 9
    assert (resized_in_strips(pixels, 33, cpu) - resized(whole, 33)).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("keep", [Keep(), Keep(color=True), Keep(detail=0.5)])
def test_a_large_picture_is_painted_alike_in_strips(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(LITE0).eval().requires_grad_(False)
    plain, style = (np.asarray(picture(size).convert("RGB")) for size in ((96, 70), (40, 32)))
    monkeypatch.setattr("pmavae.style_transfer.painting.SIDES", (32, 48))

    def painted() -> np.ndarray:  # type: ignore[type-arg]
        refining = Refining(network, 2, 1.0, torch.Generator().manual_seed(0))
        return repaint_by_steps(plain, [(style, 1.0)], refining, 0.7, keep).astype(int)

    whole = painted()
    monkeypatch.setattr("pmavae.images.pixels.STRIP_PIXELS", 96 * 5)
    strips = painted()
    assert whole.shape == plain.shape and np.abs(whole - plain).mean() > 1
    assert np.abs(whole - strips).max() <= 1


@pytest.mark.parametrize("height", [1, 127, 128, 129, 300])
def test_numbers_of_pixels_are_the_same_in_strips(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = np.random.default_rng(height).integers(0, 65536, (height, 9, 3), np.uint16)
    alpha = np.where(np.random.default_rng(1).random((height, 9)) < 0.6, 0, deep[..., 0]).astype(np.uint16)
    found = []
    for strip in (2, 128, 2**20):
        monkeypatch.setattr("pmavae.images.pixels.STRIP", strip)
        found.append((eight_bits(deep), luma(deep), fill_hidden(deep, alpha)))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    assert np.array_equal(found[0][0], np.rint(deep / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_a_file_is_read_in_strips_as_pillow_reads_it(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture((40, 61)).convert("RGB").convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    monkeypatch.setattr("pmavae.images.pixels.STRIP", 7)
    colours, alpha = _eight(image)
    grey = mode in ("L", "LA", "1")
    plain = image.convert("RGBA") if image.has_transparency_data else image
    assert np.array_equal(colours.squeeze(), np.asarray(plain.convert("L" if grey else "RGB")))
    assert (alpha is None) == (mode in ("RGB", "L", "1", "CMYK"))
    if alpha is not None:
        assert np.array_equal(alpha, np.asarray(plain.getchannel("A")))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_file_is_what_was_to_be_in_it(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, channels), np.uint8)
    with Image.open(io.BytesIO(png_bytes(pixels, Extras()))) as image:
        assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2 << 30), ("800m", 800 << 20), ("1.5GiB", 3 << 29), ("67108864", 64 << 20)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert SizeType().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "2X", "-1G", "nan", "1G1", "63M", "0"])
def test_other_sizes_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(click.BadParameter) as error:
        SizeType().convert(text, None, None)
    assert ("64M is the smallest" if text in ("63M", "0") else "is not a size") in error.value.message


def test_the_budget_is_the_usual_or_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "free_memory", lambda: 10 << 30)
    assert budget(None, 128 << 20) == 128 << 20 and budget(3 << 30, 128 << 20) == 3 << 30
    monkeypatch.setattr(options, "free_memory", lambda: 125 << 20)
    assert budget(None, 128 << 20) == 100 << 20
    monkeypatch.setattr(options, "free_memory", lambda: None)
    assert budget(None, 128 << 20) == 128 << 20


def test_a_device_without_memory_gets_smaller_tiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained("denoise")
    pixels = np.asarray(picture((96, 96)).convert("RGB"))
    whole = restore_pixels(model, pixels, Levels(10.0), tile=0)
    real, most, told = tiles.restore_whole, [], []

    def restore_whole(model: Any, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        most.append(x.shape[2])
        if len(most) <= failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, x, *args, **options)

    monkeypatch.setattr(tiles, "restore_whole", restore_whole)
    failures = 1
    again = restore_pixels(model, pixels, Levels(10.0), tile=0, report=told.append)
    assert told == ["the device has too little memory: begun anew in tiles of 48 px"]
    assert most[0] == 96 and len(most) == 5
    assert np.abs(again.astype(int) - whole).max() <= 1
    failures, most = 2, []
    with pytest.raises(torch.OutOfMemoryError):
        restore_pixels(model, pixels, Levels(10.0), tile=0)


@pytest.mark.parametrize("task", ["decode", "denoise"])
def test_a_budget_changes_no_more_than_a_level(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture((100, 180)).save(tmp_path / "in.png")
    found = []
    monkeypatch.setattr(options, "SMALLEST", 1)
    for size in ("3M", "4G"):
        output = tmp_path / f"{size}.png"
        run = [task, str(tmp_path / "in.png"), "-q", "-o", str(output), "--max-memory", size]
        assert main(run) == 0
        found.append(np.asarray(Image.open(output)).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 1


def test_freed_memory_is_given_back_where_the_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    offload.trim()
    offload._of_malloc.cache_clear()
    monkeypatch.setattr(offload.ctypes, "CDLL", lambda name: object())
    assert offload._of_malloc("malloc_trim") is None
    offload.trim()
    offload._of_malloc.cache_clear()
