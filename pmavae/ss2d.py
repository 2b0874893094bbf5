"""SS2D: a selective state space model over an image, in four directions (VMamba, arXiv 2401.10166).

The letters, as in the papers, and the code's names:

    h' = A h + B u,  y = C h + D u      the state space model, one for each channel
    Δ   `delta`     step size, per position, direction and channel; > 0
    A   `-exp(A_log)`  decay rates, per direction, channel and state; < 0
    B,C `B`, `C`    input and output projections, per position, direction and state
    D   `D`         the skip connection, per direction and channel
    R   `rank`      dt_rank: width of the bottleneck that Δ is projected from
    N   `d_state`   states a channel
    Ā   `decay`     exp(Δ A): what a step keeps of the state (zero-order hold)
    B̄u  `drive`     Δ B u: what a step adds (the first-order form that Mamba uses)

The projections are the same at every position, so they are computed once in image layout; only
the recurrence itself walks the image in four orders. No sequence is ever flattened or flipped.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.scan import DIRECTIONS, FusedScan, directional_scan, fused_scan_for

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # Mamba's range for the initial step sizes


def initial_dt_bias(*shape: int) -> Tensor:
    """Inverse softplus of step sizes drawn log-uniformly from [DT_MIN, DT_MAX]."""
    dt = torch.exp(torch.empty(*shape).uniform_(math.log(DT_MIN), math.log(DT_MAX))).clamp(min=DT_FLOOR)
    return dt + torch.log(-torch.expm1(-dt))


class SS2D(nn.Module):
    """Project, depthwise convolution, four selective scans, sum, LayerNorm, project back.

    (B, C, H, W) to (B, C, H, W). The four directions share nothing. `A_log`, `D` and the biases
    are to be trained without weight decay.
    """

    def __init__(self, channels: int, d_state: int = 1) -> None:
        super().__init__()
        self.d_state = d_state
        self.rank = math.ceil(channels / 16)
        self.in_proj = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.x_proj = nn.Parameter(torch.empty(DIRECTIONS, self.rank + 2 * d_state, channels))
        self.dt_proj = nn.Parameter(torch.empty(DIRECTIONS, channels, self.rank))
        self.dt_bias = nn.Parameter(torch.empty(DIRECTIONS, channels))
        self.A_log = nn.Parameter(torch.empty(DIRECTIONS, channels, d_state))
        self.D = nn.Parameter(torch.ones(DIRECTIONS, channels))
        if not self.D.is_meta:  # a shape alone, whose arithmetic would load half of torch's compiler
            with torch.no_grad():  # initial step sizes and decay rates
                self.dt_bias.copy_(initial_dt_bias(*self.dt_bias.shape))
                self.A_log.copy_(torch.arange(1, d_state + 1).float().log())
        self.out_norm = nn.LayerNorm(channels)
        self.out_proj = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.uniform_(self.x_proj, -(channels**-0.5), channels**-0.5)
        nn.init.uniform_(self.dt_proj, -(self.rank**-0.5), self.rank**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        u = F.silu(self.conv(self.in_proj(x))).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = self.out_norm(self.selective_scan(u)).to(x.dtype)
        projected: Tensor = self.out_proj(y.permute(0, 3, 1, 2))
        return projected

    def selective_scan(self, u: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C), as `selective_scan_2d`."""
        return selective_scan_2d(u, self.x_proj, self.dt_proj, self.dt_bias, self.A_log, self.D)


def selective_scan_2d(
    u: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor
) -> Tensor:
    """Four selective scans of u (B, H, W, C) and their sum, (B, H, W, C), in float32 at least.

    x_proj: (4, R + 2N, C). dt_proj: (4, C, R). dt_bias, D: (4, C). A_log: (4, C, N). The first of the
    four directions goes row by row, the second column by column, the others go back on these.

    Half precision would lose the state: with decays near 1 a scan adds thousands of steps.
    """
    with torch.autocast(u.device.type, enabled=False):
        u = u if u.dtype == torch.float64 else u.float()
        projected = F.linear(u, x_proj.flatten(0, 1).to(u.dtype))  # (B, H, W, 4 · (R + 2N))
        projected = projected.unflatten(-1, (DIRECTIONS, -1))
        if scan := fused_scan_for(u):
            return by_fused_scan(scan, u, projected, dt_proj, dt_bias, A_log, D)
        rank, d_state = dt_proj.shape[-1], A_log.shape[-1]
        projected = projected.permute(3, 0, 1, 2, 4)  # (4, B, H, W, R + 2N)
        low_rank, B, C = projected.split((rank, d_state, d_state), dim=-1)
        delta = low_rank.flatten(1, 3) @ dt_proj.transpose(1, 2).to(u.dtype)  # (4, B*H*W, C)
        delta = F.softplus(delta + dt_bias[:, None])
        delta = delta.unflatten(1, u.shape[:3])  # (4, B, H, W, C)
        A = -torch.exp(A_log)[:, None, None, None]  # (4, 1, 1, 1, C, N)
        decay = torch.exp(delta[..., None] * A)  # (4, B, H, W, C, N)
        drive = (delta * u)[..., None] * B[..., None, :]  # (4, B, H, W, C, N)
        h = directional_scan(decay.flatten(-2), drive.flatten(-2)).unflatten(-1, (-1, d_state))
        y = (h * C[..., None, :]).sum((0, -1))  # (B, H, W, C)
        return y + u * D.sum(0)


def by_fused_scan(
    scan: FusedScan,
    u: Tensor,
    projected: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    **into: Any,
) -> Tensor:
    """What `selective_scan_2d` gives, by a scan with one state a channel.

    projected: (B, H, W, 4, R + 2N), Δ in its bottleneck, B and C of all directions. into: see
    `pmavae.scan.selective_cpu.selective_scan`.
    """
    rank, d_state, rate = dt_proj.shape[-1], A_log.shape[-1], torch.exp(A_log)  # (4, C, N)

    def own(state: int) -> Tensor:  # (…, R + 2): step sizes, and B and C of one state
        if d_state == 1:
            return projected
        return projected[..., [*range(rank), rank + state, rank + d_state + state]]

    y = scan(u, own(0), dt_proj, dt_bias, rate[..., 0], D.sum(0), **into)
    for state in range(1, d_state):  # states of a channel share nothing but its step sizes
        y += scan(u, own(state), dt_proj, dt_bias, rate[..., state], torch.zeros_like(D[0]))
    return y
