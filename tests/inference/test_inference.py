"""What runs where nothing needs a gradient gives what the plain modules give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pmavae import PMAVAE, PRESETS
from pmavae.inference import fused, layers
from pmavae.inference.layers import forward
from pmavae.model import MobileConv, PaintBlock, ParallelMambaBlock, grain
from pmavae.scan import fused_scan_for, selective
from pmavae.ss2d import SS2D

SIZES = [(1, 1), (3, 5), (8, 8), (17, 6)]


def shaken(module: nn.Module) -> nn.Module:
    """A module none of whose parameters is zero, as branches of a new network are."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module.eval()


def plain(module: nn.Module, *arguments: Tensor) -> Tensor:
    """By the way that training takes."""
    with torch.enable_grad():
        result: Tensor = module(*arguments)
    return result.detach()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("styled", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_are_what_they_are_in_training(
    size: tuple[int, int], batch: int, styled: bool, layout: torch.memory_format
) -> None:
    x = torch.randn(batch, 16, *size).contiguous(memory_format=layout)
    style = torch.randn(batch, 8) if styled else None
    blocks = [
        MobileConv(16, expansion=2, se_reduction=4, style_dim=8 if styled else 0),
        ParallelMambaBlock(16, mlp_ratio=2.0, se_reduction=4, d_state=1, style_dim=8 if styled else 0),
    ]
    for block in map(shaken, blocks):
        assert (forward(block, x, style) - plain(block, x, style)).abs().max() < 2e-5 * x.shape[1]


@torch.no_grad()
def test_paint_blocks_are_what_they_are_in_training() -> None:
    block = shaken(PaintBlock(16, 8, 5))
    x, brush, amount = torch.randn(1, 16, 9, 7), torch.randn(1, 8), torch.full((1, 1, 1, 1), 0.4)
    assert (forward(block, x, brush, amount) - plain(block, x, brush, amount)).abs().max() < 1e-4
    assert torch.equal(grain(5, 7, x.device, first_row=4), grain(9, 7, x.device)[:, :, 4:])


@pytest.fixture(params=[0, 32], ids=["compiled", "small"])
def _each_scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selective, "SMALL_SIDE", request.param)


@torch.no_grad()
@pytest.mark.parametrize("channels", [16, 20, 40, 64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("_each_scan")
def test_the_fused_scan_is_the_scan(channels: int, size: tuple[int, int]) -> None:
    module = shaken(SS2D(channels))
    u = 2 * torch.randn(2, *size, channels)
    assert fused_scan_for(u) is not None
    with torch.enable_grad():
        expected = module.selective_scan(u).detach()
    assert (
        layers.scan_map(module, u.permute(0, 3, 1, 2)) - expected
    ).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.usefixtures("_each_scan")
def test_the_fused_scan_takes_extreme_steps() -> None:
    module = SS2D(16)
    module.dt_bias.copy_(torch.linspace(-120, 120, 64).view(4, 16))  # steps from 0 to 120, decays from 1 to 0
    module.A_log.copy_(torch.linspace(-6, 6, 64).view(4, 16, 1))
    u = torch.randn(1, 6, 7, 16)
    with torch.enable_grad():
        expected = module.double().selective_scan(u.double()).detach()
    found = layers.scan_map(module.float(), u.permute(0, 3, 1, 2))
    assert found.isfinite().all()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_block_in_strips_of_rows_is_the_block(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block = shaken(MobileConv(8, expansion=2, se_reduction=4, style_dim=8))
    x = torch.randn(1, 8, 17, 6).contiguous(memory_format=torch.channels_last)
    style = torch.randn(1, 8)
    monkeypatch.setattr(fused, "STRIP_BYTES", rows * 16 * 6 * 4)
    assert (forward(block, x, style) - plain(block, x, style)).abs().max() < 1e-4


@torch.no_grad()
def test_statistics_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "PART", 16 * 7)
    x = torch.randn(1, 16, 9, 5) * torch.linspace(0, 3, 16)[:, None, None] + torch.randn(16, 1, 1) * 20
    with torch.enable_grad():
        expected = layers.fast_statistics(x.double())
    assert (layers.fast_statistics(x) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_where_torch_lacks_the_fused_convolution_plain_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    block = shaken(MobileConv(8, expansion=2, se_reduction=4))
    x = torch.randn(1, 8, 6, 6)
    expected = forward(block, x)
    monkeypatch.setattr(fused, "fused", lambda: None)
    assert (forward(block, x) - expected).abs().max() < 1e-5


def test_a_gradient_is_never_lost() -> None:
    model = PMAVAE(PRESETS["tiny"])
    shaken(model)
    posterior = model.encoder(torch.rand(1, 3, 32, 32))
    picture = model.decoder(posterior.z_base, posterior.z_detail, posterior.z_style)
    picture.square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None and "logvar" not in name]
    assert not [name for name in missing if "paint" not in name]
