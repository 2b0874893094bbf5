"""Small pictures are scanned in plain torch: as exactly as others, by their size alone, and without Numba."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Command, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae.scan import selective
from pmavae.ss2d import SS2D
from pmavae_cli.task_command import swift_imports


def exact(module: SS2D, u: torch.Tensor) -> torch.Tensor:
    """By the scan that training takes, in double precision."""
    with torch.enable_grad():
        return module.double().selective_scan(u.double()).detach()


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    batch=st.integers(1, 3),
    channels=st.sampled_from([3, 16, 20]),
    step=st.floats(-120, 120),
    rate=st.floats(-20, 8),
    seed=st.integers(0, 99),
)
def test_any_size_and_any_decay_is_scanned_exactly(
    size: tuple[int, int], batch: int, channels: int, step: float, rate: float, seed: int
) -> None:
    torch.manual_seed(seed)
    module = SS2D(channels)
    module.dt_bias.copy_(step + 3 * torch.randn(4, channels))  # steps from 0 to over 120
    module.A_log.copy_(rate + torch.randn(4, channels, 1))  # decays from 0 to 1, to the last digit
    u = torch.randn(batch, *size, channels)
    assert selective.fused_scan_for(u) is selective.small_scan
    found = module.selective_scan(u)
    expected = exact(module, u)
    assert found.isfinite().all()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 32), (32, 1), (32, 32)])
def test_the_largest_small_pictures_are_scanned_exactly(size: tuple[int, int]) -> None:
    module = SS2D(16)
    u = torch.randn(1, *size, 16)
    found = module.selective_scan(u)
    assert (found - exact(module, u)).abs().max() <= 1e-5 * found.abs().max()


@torch.no_grad()
def test_a_picture_is_scanned_alike_alone_and_in_a_batch() -> None:
    module, u = SS2D(16), torch.randn(3, 8, 5, 16)
    alone = torch.cat([module.selective_scan(one[None]) for one in u])
    assert (alone - module.selective_scan(u)).abs().max() <= 1e-6 * alone.abs().max()


@torch.no_grad()
def test_which_scan_runs_is_a_matter_of_the_size_alone() -> None:
    def scan_of(*size: int) -> object:
        return selective.fused_scan_for(torch.empty(size))

    small = selective.small_scan
    # A picture of 256 × 256 pixels at the strides 8 and 16, alone and in a batch.
    assert [scan_of(1, 32, 32, 128), scan_of(64, 32, 32, 8), scan_of(1, 16, 16, 192)] == [small] * 3
    assert small not in (scan_of(1, 33, 1, 8), scan_of(1, 1, 33, 8), scan_of(1, 33, 33, 8))
    selective.compiled_scan("selective_scan")  # loads the compiled one, where there is one
    assert scan_of(1, 32, 32, 128) is small


def test_decoding_a_small_picture_loads_no_numba(pmavae: Command, tmp_path: Path) -> None:
    picture((256, 256)).save(tmp_path / "a.png")
    code = (
        "import sys; from pmavae_cli.main import main; status = main(sys.argv[1:]); "
        "print(status, sorted({'numba', 'llvmlite', 'scipy', 'torch'} & set(sys.modules)))"
    )
    for arguments in (["encode", "a.png", "-o", "a.safetensors"], ["decode", "a.safetensors", "-o", "b.png"]):
        command = [sys.executable, "-c", code, *arguments, "-q"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        assert done.stdout.splitlines()[-1] == "0 ['torch']", done.stderr
    assert (tmp_path / "b.png").stat().st_size > 0


def test_nothing_that_is_imported_is_ever_searched_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    before = gc.get_freeze_count()
    try:
        with swift_imports():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_the_collector_goes_on_after_an_import_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), swift_imports():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_a_collector_that_is_off_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    gc.disable()
    try:
        with swift_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
