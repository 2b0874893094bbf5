"""What makes more of a core-hour: the scan with its gradient, Muon, schedules that are prolonged, growth."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_config import CONFIG

from pmavae import PMAVAE
from pmavae.errors import WeightsError
from pmavae.scan import selective
from pmavae.ss2d import SS2D
from pmavae.training.growth import grown
from pmavae.training.losses import edge_loss, pixel_loss
from pmavae.training.optimizers import Muon, is_matrix, orthogonal
from pmavae.training.phases import Phase
from pmavae.training.schedule import position


def gradients(module: SS2D, u: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """The output, and what the gradient is for the input and for each parameter of the scan."""
    u = u.clone().requires_grad_()
    y = module.selective_scan(u)
    parameters = [module.x_proj, module.dt_proj, module.dt_bias, module.A_log, module.D]
    return [y.detach(), *torch.autograd.grad(y, [u, *parameters], weight)]


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.integers(1, 3),
    channels=st.sampled_from([3, 16, 64, 65, 130]),
    d_state=st.sampled_from([1, 1, 2]),
    seed=st.integers(0, 99),
)
def test_the_scan_for_training_has_the_gradients_of_double_precision(
    size: tuple[int, int], batch: int, channels: int, d_state: int, seed: int
) -> None:
    torch.manual_seed(seed)
    module = SS2D(channels, d_state)
    u, weight = torch.randn(batch, *size, channels), torch.randn(batch, *size, channels)
    assert selective.fused_scan_for(u) is selective.compiled_scan("differentiable_scan")
    assert selective.fused_scan_for(u.double()) is None
    found = gradients(module, u, weight)
    for one, exact in zip(found, gradients(module.double(), u.double(), weight.double()), strict=True):
        assert (one - exact).abs().max() <= 2e-5 * exact.abs().max() + 1e-6


def test_frozen_parts_of_the_scan_need_no_gradient() -> None:
    module = SS2D(16).requires_grad_(False)
    u = torch.randn(1, 5, 4, 16, requires_grad=True)
    module.selective_scan(u).sum().backward()
    assert u.grad is not None and u.grad.isfinite().all() and module.D.grad is None


@pytest.mark.parametrize("shape", [(3, 12, 40), (2, 32, 60)])
def test_muons_step_is_an_orthogonal_matrix(shape: tuple[int, int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonal(x)
    # Newton-Schulz leaves singular values between about 0.7 and 1.2, and the vectors as they are.
    assert ((torch.linalg.svdvals(found) > 0.6) & (torch.linalg.svdvals(found) < 1.3)).all()
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    assert ((left @ right) * found).sum((1, 2)).min() > 0.8 * shape[1]


def test_muon_fits_matrices_of_several_shapes_and_resumes() -> None:
    def run(steps: int, half: int | None = None) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        wanted = [torch.randn(s, generator=generator) for s in ((12, 20), (20, 12), (12, 20), (16, 4, 3, 3))]
        found = [torch.nn.Parameter(torch.zeros_like(x)) for x in wanted]
        optimizer = Muon(found, lr=0.05, weight_decay=0.0)
        for step in range(steps):
            if step == half:
                kept = optimizer.state_dict()
                optimizer = Muon(found, lr=0.05, weight_decay=0.0)
                optimizer.load_state_dict(kept)
            optimizer.zero_grad()
            torch.stack([(a - b).square().sum() for a, b in zip(found, wanted, strict=True)]).sum().backward()
            optimizer.step()
        return [(a - b).detach() for a, b in zip(found, wanted, strict=True)]

    assert all(x.abs().mean() < 0.3 for x in run(100))  # 0.8 at the start
    assert all(torch.equal(a, b) for a, b in zip(run(10), run(10, half=5), strict=True))


def test_muon_takes_matrices_and_leaves_the_scan_and_the_last_layers_alone() -> None:
    model = PMAVAE(dataclasses.replace(CONFIG, encoder_channels=(16,) * 4, decoder_channels=(16,) * 4))
    taken = {name for name, parameter in model.named_parameters() if is_matrix(name, parameter)}
    assert any("mlp" in name for name in taken) and any("in_proj" in name for name in taken)
    apart = ("x_proj", "dt_proj", "base_head", "detail_head", "out.0", "linear_", "bias", "depthwise", "norm")
    assert not any(part in name for name in taken for part in apart)


def test_edges_are_the_sobel_gradients_inside_the_picture() -> None:
    a, b = torch.rand(2, 2, 3, 9, 12)
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack((sobel, sobel.T))[:, None]
    convolved = torch.nn.functional.conv2d((a - b).flatten(0, 1)[:, None], kernels).abs().mean()
    assert float(edge_loss(a, b)) == pytest.approx(float(convolved), rel=1e-5)


def test_log_mse_counts_decibels_of_each_crop() -> None:
    target = torch.rand(2, 3, 16, 16)
    near, nearer = target + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1), target + 0.01
    gain = pixel_loss(near, target, "log-mse") - pixel_loss(nearer, target, "log-mse")
    # One of two crops gained 20 dB less the floor of 50 dB: ln(100) · 0.012 / 2.
    assert float(gain) == pytest.approx(0.012 * math.log(1.001e-2 / 1.1e-4) / 2, rel=1e-2)


def test_a_phase_that_decays_late_is_constant_before_however_long_it_becomes() -> None:
    phase = Phase("only", 1.0, crop=32, batch=4, learning_rate=1e-3, warmup=0.01, decay=0.25)
    rates = [position([phase], progress).learning_rate for progress in (0.0, 0.01, 0.3, 0.74, 0.875, 1.0)]
    assert rates == pytest.approx([0.0, 1e-3, 1e-3, 1e-3, 5e-4, 0.0], abs=1e-9)


def test_a_grown_network_computes_what_the_small_one_does() -> None:
    torch.manual_seed(0)
    small = PMAVAE(CONFIG).eval()
    for parameter in small.parameters():  # zeros of the start would hide a mistake
        torch.nn.init.normal_(parameter, std=0.1)
    wide = {
        "encoder_channels": (16, 16, 16, 24),
        "decoder_channels": (16,) * 4,
        "decoder_blocks": (2, 1, 1, 1),
    }
    large = grown(small, dataclasses.replace(CONFIG, **wide)).eval()  # type: ignore[arg-type]
    picture = torch.rand(1, 3, 64, 48)
    a, b = small.encode(picture), large.encode(picture)
    # Norms over channels see the duplicates; of 16 from 8 they are the same mean and deviation.
    assert (a.z_detail - b.z_detail).abs().max() < 0.05 * a.z_detail.abs().max()
    assert (small.decode(a) - large.decode(a)).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"base_channels": 5}, "other latents"), ({"decoder_channels": (4, 8, 8, 8)}, "not smaller")],
)
def test_a_network_that_cannot_grow_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        grown(PMAVAE(CONFIG), dataclasses.replace(CONFIG, **changes))  # type: ignore[arg-type]
