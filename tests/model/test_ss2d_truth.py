"""SS2D against a slow, independent reimplementation: float64, all four directions, forward and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from released_vmamba import cross_scan
from torch import Tensor

from pmavae.ss2d import SS2D
from pmavae.vmamba import VMAMBA
from pmavae.vmamba.network import SS2D as ReleasedSS2D

SIZES = [(1, 1), (1, 7), (5, 1), (3, 5), (7, 4)]


def parameters(d: int, rank: int, states: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Parameters as released, each direction and channel with values of its own."""
    generator = torch.Generator().manual_seed(d * 100 + states)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = {
        "x_proj_weight": drawn(4, rank + 2 * states, d) / d**0.5,
        "dt_projs_weight": drawn(4, d, rank),
        "dt_projs_bias": drawn(4, d) - 1,
        "A_logs": drawn(4 * d, states) / 2,
        "Ds": drawn(4 * d),
    }
    return {name: value.to(dtype) for name, value in values.items()}


def module_with(values: dict[str, Tensor], channels: int, states: int) -> ReleasedSS2D:
    config = replace(VMAMBA["vmamba-tiny"], d_state=states)
    module = ReleasedSS2D(channels, config).to(values["Ds"].dtype)
    module.load_state_dict(values, strict=False)
    return module


@pytest.mark.parametrize("states", [1, 16])
@pytest.mark.parametrize("size", SIZES)
def test_forward_and_every_gradient_are_those_of_the_equations(size: tuple[int, int], states: int) -> None:
    channels, batch = 20, 2  # rank 2
    values = parameters(channels, 2, states)
    module = module_with(values, channels, states)
    u = torch.randn(batch, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weight = torch.randn(u.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    slow_u = u.clone().requires_grad_()
    slow = cross_scan(slow_u, *leaves.values())
    (slow * weight).sum().backward()

    fast_u = u.clone().requires_grad_()
    fast = module.selective_scan(fast_u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    (fast * weight).sum().backward()

    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fast_u.grad, slow_u.grad, rtol=1e-9, atol=1e-11)
    for name, leaf in leaves.items():
        grad = dict(module.named_parameters())[name].grad
        torch.testing.assert_close(grad, leaf.grad, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("states", [1, 16])
@pytest.mark.parametrize("size", [(3, 5), (2, 35)])  # 32 is where another form of the scan begins
def test_inference_in_float32_agrees_too(size: tuple[int, int], states: int) -> None:
    values = parameters(20, 2, states)
    u = torch.randn(1, 20, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = cross_scan(u, *values.values())
    module = module_with({name: value.float() for name, value in values.items()}, 20, states)
    with torch.no_grad():
        found = module.selective_scan(u.float().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("direction", range(4))
def test_each_direction_sees_what_comes_before_it(direction: int) -> None:
    """One changed pixel changes the outputs after it in the order of the direction, and no others."""
    height, width, row, column = 4, 5, 1, 2
    values = parameters(16, 1, 1)
    for name in ("x_proj_weight", "Ds"):
        others = [k for k in range(4) if k != direction]
        values[name].view(4, -1)[others] = 0  # no input, no output: the other directions are silent
    module = module_with(values, 16, 1)
    u = torch.randn(1, height, width, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    changed = u.clone()
    changed[0, row, column] += 1
    moved = (module.selective_scan(changed) - module.selective_scan(u))[0].abs().amax(-1) > 1e-12
    place = [
        (i * width + j if direction % 2 == 0 else j * height + i) for i in range(height) for j in range(width)
    ]
    places = torch.tensor(place).view(height, width)
    here = places[row, column]
    assert torch.equal(moved, places >= here if direction < 2 else places <= here)


@pytest.mark.parametrize("states", [1, 16])
def test_the_autoencoders_own_ss2d_is_the_same_scan(states: int) -> None:
    values = parameters(32, 2, states)
    module = SS2D(32, states).double()
    with torch.no_grad():
        module.x_proj.copy_(values["x_proj_weight"])
        module.dt_proj.copy_(values["dt_projs_weight"])
        module.dt_bias.copy_(values["dt_projs_bias"])
        module.A_log.copy_(values["A_logs"].view(4, 32, states))
        module.D.copy_(values["Ds"].view(4, 32))
    u = torch.randn(1, 32, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    found = module.selective_scan(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, cross_scan(u, *values.values()), rtol=1e-10, atol=1e-12)
