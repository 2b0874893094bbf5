"""Feature maps in files: as they are in memory."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pmavae import PMAVAE
from pmavae.inference import offload
from pmavae.inference.offload import Budget, added, empty_map, in_strips, let_go

LIKE = torch.empty(0)


@pytest.fixture
def tiny() -> PMAVAE:
    return PMAVAE.from_pretrained("tiny")


def resident_pages_of_files() -> int:
    found = [line for line in Path("/proc/self/status").read_text().splitlines() if "RssFile" in line]
    return int(found[0].split()[1])  # KiB


def test_a_small_map_is_in_memory() -> None:
    budget = Budget(4 * 8 * 16 * 16)
    small = empty_map((1, 8, 16, 16), LIKE, budget)
    assert not offload._mapped
    large = empty_map((1, 8, 17, 16), LIKE, budget)
    assert len(offload._mapped) == 1
    assert small.is_contiguous(memory_format=torch.channels_last)
    assert large.is_contiguous(memory_format=torch.channels_last)
    del large
    assert not offload._mapped  # gone with its map
    empty_map((1, 8, 17, 16), LIKE, None)
    assert not offload._mapped  # nobody has asked for files


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="the system is not told what it may let go")
def test_what_is_let_go_keeps_its_values_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    large = empty_map((1, 64, 256, 512), LIKE, Budget(1))  # 32 MiB
    values = torch.randn(64, 512)
    for row in range(256):
        large[0, :, row] = values + row
    let_go(1)
    if sys.platform == "linux":
        before = resident_pages_of_files()
    monkeypatch.setattr(offload, "RESIDENT", 1)
    let_go(1)
    if sys.platform == "linux":
        assert before - resident_pages_of_files() > 30_000
    assert all(torch.equal(large[0, :, row], values + row) for row in range(256))


def test_a_file_has_no_name_and_is_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    make = offload.tempfile.TemporaryFile
    monkeypatch.setattr(offload.tempfile, "TemporaryFile", lambda dir: (asked.append(dir), make(dir=dir))[1])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(offload.tempfile, "tempdir", None)
    large = empty_map((1, 4, 64, 64), LIKE, Budget(1))
    large.fill_(1)
    assert asked == [str(tmp_path)] and not list(tmp_path.iterdir())


def test_without_room_for_a_file_a_map_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    large = empty_map((1, 4, 64, 64), LIKE, Budget(1))
    assert not offload._mapped and large.shape == (1, 4, 64, 64)


LAYERS = {
    "same size": (nn.Conv2d(5, 7, 3, padding=1), {"channels": 7, "reach": 1}),
    "half the size": (nn.Conv2d(5, 7, 3, stride=2, padding=1), {"channels": 7, "reach": 1, "rows_in": 2}),
    "twice the size": (
        nn.Sequential(nn.Conv2d(5, 12, 1), nn.PixelShuffle(2)),
        {"channels": 3, "rows_out": 2},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4000))
@settings(max_examples=15, deadline=None)
def test_a_layer_in_strips_is_the_layer(name: str, rows: int, columns: int, strip_bytes: int) -> None:
    layer, how = LAYERS[name]
    x = torch.randn(1, 5, 2 * rows, 2 * columns)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("pmavae.inference.fused.STRIP_BYTES", strip_bytes)
        made = in_strips(layer, x, budget=Budget(1), **how)
        assert offload._mapped
        torch.testing.assert_close(made, layer(x), rtol=1e-5, atol=1e-5)
        twice = made.clone()
        torch.testing.assert_close(added(twice, made), 2 * layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("amount", [0.0, 0.5], ids=["plain", "painted"])
def test_a_picture_is_the_same_bytes_with_its_maps_in_files(
    tiny: PMAVAE, amount: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.asarray(picture((400, 200)))
    tiny.budget = Budget(1 << 16)

    def there_and_back() -> tuple[torch.Tensor, np.ndarray]:  # type: ignore[type-arg]
        latents = tiny.encode(pixels)
        z_style = latents.z_style.clone()
        z_style[:, -1] = amount
        return latents.z_base, tiny.decode_pixels(latents.replace(z_style=z_style))

    with monkeypatch.context() as patch:
        patch.setattr(offload, "_new_file", lambda size: None)
        base, decoded = there_and_back()
    files = []
    make = offload._new_file
    monkeypatch.setattr(offload, "_new_file", lambda size: (files.append(size), make(size))[1])
    monkeypatch.setattr(offload, "RESIDENT", 1)
    again = there_and_back()
    assert len(files) > 10 and min(files) > tiny.budget.strip
    assert torch.equal(base, again[0]) and np.array_equal(decoded, again[1])
