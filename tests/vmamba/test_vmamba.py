"""The VMamba family: its sizes, its initial values, its forward pass against an independent one, its maps."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from released_vmamba import ReleasedForward, random_state

from pmavae.network_configs import DROP_PATH
from pmavae.pretrained.weights import weightless
from pmavae.vmamba import MEAN, STD, VARIANTS, VMAMBA, VMamba
from pmavae.vmamba.network import DropPath

PARAMETERS = {
    "vmamba-tiny": (30_249_064, 30.25),
    "vmamba-small": (50_147_752, 50.15),
    "vmamba-base": (88_557_800, 88.56),
    "vmamba-small-s1l20": (49_012_840, 49.01),
    "vmamba-base-s1l20": (86_614_504, 86.61),
    "vmamba-tiny-s2l5": (30_705_832, 30.71),
    "vmamba-tiny-v0": (22_893_448, 22.89),
    "vmamba-small-v0": (44_417_416, 44.42),
    "vmamba-base-v0": (76_254_056, 76.25),
}
SMALL = replace(VMAMBA["vmamba-tiny"], channels=(8, 16, 32, 64), depths=(1, 1, 2, 1), classes=5)
WIDE = replace(SMALL, ssm_ratio=2.0)
VANILLA = replace(
    VMAMBA["vmamba-tiny-v0"], channels=(8, 16, 32, 64), depths=(1, 1, 2, 1), classes=5, d_state=16
)


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", VMAMBA)
def test_every_variant_has_the_papers_number_of_parameters(name: str) -> None:
    exact, millions = PARAMETERS[name]
    with weightless():
        model = VMamba(VMAMBA[name])
    count = sum(p.numel() for p in model.parameters())
    assert (count, round(count / 1e6, 2)) == (exact, millions)
    assert not list(model.buffers())


def test_the_names_of_the_paper_stand_for_the_same() -> None:
    assert set(VARIANTS.values()) == set(VMAMBA.values())
    assert all(config.preset == name for name, config in VMAMBA.items()) and DROP_PATH.keys() == VMAMBA.keys()
    for name, config in VARIANTS.items():
        if not name.startswith("vanilla"):
            ratio, depth = name.split("_s")[1].split("l")
            assert (config.ssm_ratio, config.depths[2]) == (float(ratio), int(depth))


@pytest.mark.parametrize("config", [SMALL, WIDE, VANILLA], ids=["s1", "s2", "v0"])
@pytest.mark.parametrize("size", [(32, 32), (36, 52)])
def test_logits_and_maps_are_those_of_the_released_forward_pass(config, size) -> None:
    state = random_state({name: tuple(t.shape) for name, t in VMamba(config).state_dict().items()})
    released = ReleasedForward(state)
    model = VMamba(config).double().eval()
    model.load_state_dict(state)
    x = picture(2, 3, *size).double()
    with torch.no_grad():
        logits, maps = model(x), model.features(x)
    torch.testing.assert_close(logits, released.logits(x), rtol=1e-8, atol=1e-9)
    for found, expected in zip(maps, released.stages(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("config", [SMALL, VANILLA], ids=["v05", "v0"])
def test_inference_training_and_autocast_agree(config) -> None:
    torch.manual_seed(0)
    model, x = VMamba(config).eval(), picture(2, 3, 40, 44)
    with torch.no_grad():
        plain = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = model(x)
    kept = model(x)
    assert (plain - kept).abs().max() < 1e-4 * kept.abs().max()
    assert (narrow - kept).abs().max() < 0.05 * kept.abs().max()


@pytest.mark.parametrize("config", [SMALL, VANILLA], ids=["v05", "v0"])
@pytest.mark.parametrize("size", [(4, 4), (32, 64), (37, 50)])
def test_maps_have_the_channels_and_strides_that_are_promised(config, size) -> None:
    maps = VMamba(config).eval().features(picture(1, 3, *size))
    sides = tuple(side // 4 if config.generation == "v0" else -(-side // 4) for side in size)
    for found, channels in zip(maps, config.channels, strict=True):
        assert found.shape == (1, channels, *sides)
        sides = tuple(-(-side // 2) for side in sides)
    for fine, coarse in pairwise(maps):
        assert coarse.shape[1] == 2 * fine.shape[1]


@pytest.mark.parametrize("config", [SMALL, VANILLA], ids=["v05", "v0"])
def test_every_parameter_gets_a_gradient(config) -> None:
    torch.manual_seed(0)
    model = VMamba(config).train()
    F.cross_entropy(model(picture(2, 3, 64, 64)), torch.tensor([1, 3])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_initial_values_are_the_released_ones() -> None:
    torch.manual_seed(0)
    config = replace(VANILLA, channels=(64, 128, 256, 512))
    op = VMamba(config).layers[2].blocks[0].op
    inner, rank = 512, 16
    steps = F.softplus(op.dt_projs_bias.double())
    assert 0.001 * 0.999 < steps.min() < 0.0011 and 0.09 < steps.max() < 0.1 * 1.001
    # Log-uniform: the logarithm has the mean and the deviation of a uniform distribution.
    log = steps.log()
    assert abs(log.mean() - (math.log(0.001) + math.log(0.1)) / 2) < 0.1
    assert abs(log.std() - math.log(100) / 12**0.5) < 0.1
    decay = -torch.exp(op.A_logs)
    torch.testing.assert_close(decay, -torch.arange(1.0, 17.0).expand(4 * inner, 16))
    assert (op.Ds == 1).all() and op.Ds.shape == (4 * inner,)
    for weight, bound in ((op.x_proj_weight, inner**-0.5), (op.dt_projs_weight, rank**-0.5)):
        assert bound * 0.99 < weight.abs().max() <= bound
        assert abs(weight.std() - bound / 3**0.5) < 0.02 * bound
    assert abs(op.in_proj.weight.std() - 0.02) < 0.001 and abs(op.out_proj.weight.std() - 0.02) < 0.001


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean() -> None:
    rates = [m.rate for m in VMamba(SMALL, drop_path=0.4).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    torch.manual_seed(0)
    drop, x = DropPath(0.25).train(), torch.ones(4000, 1, 1, 2)
    y = drop(x)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert (y[..., 0] == y[..., 1]).all() and abs(y.mean() - 1) < 0.05
    assert torch.equal(drop.eval()(x), x)


def test_training_learns() -> None:
    """A few steps on two kinds of pictures: the loss falls to a fraction."""
    torch.manual_seed(0)
    model = VMamba(replace(SMALL, depths=(1, 1, 1, 1))).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    x, wanted = picture(8, 3, 32, 32), torch.arange(8) % 2
    x[wanted == 1, 0] += 1.0
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(model(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_importing_the_family_does_not_import_torch() -> None:
    code = "import sys, pmavae.vmamba as v; v.VMAMBA['vmamba-tiny']; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert (MEAN[0], STD[2]) == (0.485, 0.225)


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="generation 'v9'"):
        replace(SMALL, generation="v9")
    with pytest.raises(ValueError, match="halved"):
        replace(SMALL, channels=(9, 16, 32, 64))
