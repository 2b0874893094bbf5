"""VMamba: a stem, four stages, and a classifier.

All parts but the stem's first work on (B, H, W, C), with the names that released checkpoints have.
Convolutions see the same memory as (B, C, H, W) in channels-last layout, so nothing is copied between them,
norms and linear layers.
"""

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.inference.fused import conv_silu
from pmavae.network_configs import VMAMBA_TASK, VMambaConfig
from pmavae.pretrained.network import Pretrained
from pmavae.pretrained.weights import shapes_of, weightless
from pmavae.scan import DIRECTIONS, can_fuse
from pmavae.ss2d import initial_dt_bias, selective_scan_2d
from pmavae.vmamba.checkpoints import check_shapes, config_of, renamed


class Permute(nn.Module):
    """The same numbers with their sides in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # where channels go, from first to last and back


class SS2D(nn.Module):
    """VMamba's token mixer: project, depthwise convolution, four selective scans, LayerNorm, project back.

    With a gate, as in v0, the projection gives twice the width, and what was scanned is multiplied by SiLU of
    the second half. The recurrence is that of `pmavae.ss2d`; parameters lie as they were released:
    x_proj_weight (4, R + 2N, d), dt_projs_weight (4, d, R), dt_projs_bias (4, d), A_logs (4d, N), Ds (4d).
    """

    def __init__(self, channels: int, config: VMambaConfig) -> None:
        super().__init__()
        inner, rank, d_state = config.inner(channels), config.rank(channels), config.d_state
        self.has_gate = config.has_gate
        self.in_proj = nn.Linear(channels, inner * (2 if self.has_gate else 1), bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=self.has_gate)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * d_state, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.empty(DIRECTIONS * inner, d_state))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        nn.init.uniform_(self.x_proj_weight, -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)
        if not self.Ds.is_meta:  # there is no arithmetic without memory
            with torch.no_grad():  # step sizes, log-uniform, and decay rates, A = −1 … −N
                self.dt_projs_bias.copy_(initial_dt_bias(DIRECTIONS, inner))
                self.A_logs.copy_(torch.arange(1, d_state + 1).float().log())

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_proj(x)
        gate = None
        if self.has_gate:
            x, gate = x.chunk(2, dim=-1)
        y = self.out_norm(self.selective_scan(self._convolved(x))).to(x.dtype)
        if gate is not None:
            y = y * F.silu(gate)
        return self.out_proj(y)

    def _convolved(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        if can_fuse(x) and x.dtype != torch.float64:  # which oneDNN does not have
            y = conv_silu(x, self.conv2d, self.conv2d.weight, self.conv2d.bias)
        else:
            y = F.silu(self.conv2d(x))
        return y.permute(0, 2, 3, 1)

    def selective_scan(self, u: Tensor) -> Tensor:
        """(B, H, W, d) to (B, H, W, d): the sum of four scans, in float32 at least."""
        shape = self.dt_projs_bias.shape  # (4, d)
        return selective_scan_2d(
            u,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs.view(*shape, -1),
            self.Ds.view(shape),
        )


class MLP(nn.Module):
    """Two linear layers with GELU between them, at each position."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, a sample goes without this branch now and then."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class VSSBlock(nn.Module):
    """x = x + op(norm(x)), then, but in v0, x = x + mlp(norm2(x))."""

    def __init__(self, channels: int, config: VMambaConfig, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.op = SS2D(channels, config)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels) if config.has_mlp else None
        self.mlp = MLP(channels, int(config.mlp_ratio * channels)) if config.has_mlp else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        if self.mlp is not None:
            assert self.norm2 is not None
            x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


class PatchMerging(nn.Module):
    """Four neighbours side by side, normalised and projected: (B, H, W, C) to (B, ⌈H/2⌉, ⌈W/2⌉, C')."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        # The order of the four is that of the released weights: down the first column, then the second.
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, -1)))


def patch_embedding(config: VMambaConfig) -> nn.Sequential:
    """(B, 3, H, W) to (B, h, w, C): H and W over 4, rounded up, or down in v0."""
    channels = config.channels[0]
    if config.generation == "v0":
        return nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), Permute(*LAST), nn.LayerNorm(channels))
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, stride=2, padding=1),
        Permute(*LAST),
        nn.LayerNorm(half),
        Permute(*FIRST),
        nn.GELU(),
        nn.Conv2d(half, channels, 3, stride=2, padding=1),
        Permute(*LAST),
        nn.LayerNorm(channels),
    )


def downsampling(channels: int, out_channels: int, config: VMambaConfig) -> nn.Module:
    """(B, H, W, C) to (B, ⌈H/2⌉, ⌈W/2⌉, C'), between two stages."""
    if config.generation == "v0":
        return PatchMerging(channels, out_channels)
    return nn.Sequential(
        Permute(*FIRST),
        nn.Conv2d(channels, out_channels, 3, stride=2, padding=1),
        Permute(*LAST),
        nn.LayerNorm(out_channels),
    )


class Stage(nn.Module):
    """Blocks at one stride, and the way to the next; (B, H, W, C)."""

    def __init__(self, blocks: list[VSSBlock], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample


class Classifier(nn.Module):
    """LayerNorm, mean over positions, linear: (B, H, W, C) to (B, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).mean((1, 2)))


class VMamba(Pretrained):
    """A classifier of pictures that serves as a backbone too.

    Pictures are (B, 3, H, W) in [0, 1], less `pmavae.vmamba.MEAN` and divided by `STD`; any H and W from
    4 px. `VMamba(config)` is untrained, with the initial values of the paper's code; `drop_path` is the
    rate of the last block, from which it falls to 0 at the first (`config.DROP_PATH` has those of the paper).
    A_logs, Ds and biases are to be trained without weight decay.
    """

    config_type, tasks = VMambaConfig, (VMAMBA_TASK,)
    file_dtype = torch.float32

    def __init__(self, config: VMambaConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = patch_embedding(config)
        total = sum(config.depths)
        rates = iter([drop_path * number / max(1, total - 1) for number in range(total)])
        self.layers = nn.ModuleList()
        for index, (channels, depth) in enumerate(zip(config.channels, config.depths, strict=True)):
            last = index + 1 == len(config.depths)
            down = None if last else downsampling(channels, config.channels[index + 1], config)
            self.layers.append(Stage([VSSBlock(channels, config, next(rates)) for _ in range(depth)], down))
        self.classifier = Classifier(config.channels[-1], config.classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.classifier(self._stages(x)[-1])

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the four stages, (B, C, H/s, W/s) for s = 4, 8, 16, 32.

        Sides are rounded up; those of v0 lose what is beyond a multiple of 4 first.
        """
        return tuple(y.permute(0, 3, 1, 2) for y in self._stages(x))

    def _stages(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x.contiguous(memory_format=torch.channels_last))
        outputs = []
        for stage in self.layers:
            x = stage.blocks(x)  # type: ignore[operator]
            outputs.append(x)
            if stage.downsample is not None:
                x = stage.downsample(x)  # type: ignore[operator]
        return outputs

    @classmethod
    def from_checkpoint(cls, state: Mapping[str, Tensor]) -> Self:
        """The model of a released state dict, under any of its names, in evaluation mode.

        Raises WeightsError where the tensors are not those of a VMamba.
        """
        state, config = read_checkpoint(state)
        model = cls(config)
        model.load_state_dict(state)
        return model.eval()


def read_checkpoint(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], VMambaConfig]:
    """A released state dict under the names of `VMamba`, and the configuration that its shapes imply.

    Raises WeightsError, in a few words for a sentence that names the file, where they imply none, or where a
    tensor is missing, unknown or of another shape than the others imply.
    """
    ours = renamed(state)
    config = config_of(ours)
    with weightless():
        check_shapes(ours, shapes_of(VMamba(config)))
    return ours, config
