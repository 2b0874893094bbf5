"""SS2D against the state space model written out step by step."""

import math

import pytest
import torch
import torch.nn.functional as F

from pmavae.ss2d import DT_FLOOR, DT_MAX, DT_MIN, SS2D, initial_dt_bias


def written_out(module, u):
    """h' = exp(Δ A) h + Δ B u, y = C h + D u, one position after another."""
    height, width, channels = u.shape
    y = torch.zeros_like(u)
    A = -torch.exp(module.A_log)
    for k in range(4):
        order = [(i, j) for i in range(height) for j in range(width)]
        if k % 2:
            order = [(i, j) for j in range(width) for i in range(height)]
        if k >= 2:
            order = order[::-1]
        h = torch.zeros(channels, module.d_state, dtype=u.dtype)
        for i, j in order:
            low_rank, B, C = (module.x_proj[k] @ u[i, j]).split([module.rank, module.d_state, module.d_state])
            delta = F.softplus(module.dt_proj[k] @ low_rank + module.dt_bias[k])
            h = torch.exp(delta[:, None] * A[k]) * h + (delta * u[i, j])[:, None] * B
            y[i, j] += h @ C + module.D[k] * u[i, j]
    return y


@pytest.mark.parametrize("d_state", [1, 3])
def test_selective_scan_is_the_state_space_model(d_state):
    torch.manual_seed(0)
    module = SS2D(20, d_state).double()
    with torch.no_grad():
        module.D.normal_()
    u = torch.randn(2, 3, 4, 20, dtype=torch.float64)
    expected = torch.stack([written_out(module, item) for item in u])
    torch.testing.assert_close(module.selective_scan(u), expected)


def test_shapes_and_initial_values_are_vmambas():
    module = SS2D(100, d_state=4)
    assert module.rank == math.ceil(100 / 16)
    assert module.x_proj.shape == (4, module.rank + 8, 100)
    assert module.dt_proj.abs().max() <= module.rank**-0.5
    torch.testing.assert_close(-torch.exp(module.A_log)[2, 7], -torch.arange(1.0, 5.0))
    assert (module.D == 1).all()


def test_initial_step_sizes_cover_their_range_log_uniformly():
    torch.manual_seed(0)
    dt = F.softplus(initial_dt_bias(20_000).double())
    assert dt.min() >= DT_FLOOR
    assert dt.min() < DT_MIN * 1.1
    assert DT_MAX * 0.9 < dt.max() <= DT_MAX * 1.001
    assert abs(dt.log().mean() - (math.log(DT_MIN) + math.log(DT_MAX)) / 2) < 0.05


def test_the_scan_runs_in_float32_under_autocast():
    module = SS2D(16)
    u = torch.randn(1, 4, 4, 16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module.selective_scan(u)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, module.selective_scan(u.float()))
