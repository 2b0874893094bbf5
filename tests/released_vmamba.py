"""VMamba as it was released: the tensors of a checkpoint, written down as names and shapes, and its forward
pass, written slowly after the paper (arXiv 2401.10166) without anything of pmavae's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# VMamba-T[s1l8]: 96, 192, 384 and 768 channels, 2, 2, 8 and 2 blocks, scans as wide as the blocks.
TINY_STEM: Shapes = {
    "patch_embed.0.weight": (48, 3, 3, 3),
    "patch_embed.0.bias": (48,),
    "patch_embed.2.weight": (48,),
    "patch_embed.2.bias": (48,),
    "patch_embed.5.weight": (96, 48, 3, 3),
    "patch_embed.5.bias": (96,),
    "patch_embed.7.weight": (96,),
    "patch_embed.7.bias": (96,),
}
TINY_DOWNSAMPLES: Shapes = {
    "layers.0.downsample.1.weight": (192, 96, 3, 3),
    "layers.0.downsample.1.bias": (192,),
    "layers.0.downsample.3.weight": (192,),
    "layers.0.downsample.3.bias": (192,),
    "layers.1.downsample.1.weight": (384, 192, 3, 3),
    "layers.1.downsample.1.bias": (384,),
    "layers.1.downsample.3.weight": (384,),
    "layers.1.downsample.3.bias": (384,),
    "layers.2.downsample.1.weight": (768, 384, 3, 3),
    "layers.2.downsample.1.bias": (768,),
    "layers.2.downsample.3.weight": (768,),
    "layers.2.downsample.3.bias": (768,),
}
TINY_CLASSIFIER: Shapes = {
    "classifier.norm.weight": (768,),
    "classifier.norm.bias": (768,),
    "classifier.head.weight": (1000, 768),
    "classifier.head.bias": (1000,),
}
# A block by its stage: channels, R + 2N, R, 4d, hidden width of the MLP.
TINY_STAGES = (
    (2, 96, 8, 6, 384, 384),
    (2, 192, 14, 12, 768, 768),
    (8, 384, 26, 24, 1536, 1536),
    (2, 768, 50, 48, 3072, 3072),
)


def tiny_shapes() -> Shapes:
    """All tensors of VMamba-T[s1l8]."""
    shapes = {**TINY_STEM, **TINY_DOWNSAMPLES, **TINY_CLASSIFIER}
    for stage, (depth, c, projected, rank, directions, hidden) in enumerate(TINY_STAGES):
        for number in range(depth):
            block = f"layers.{stage}.blocks.{number}"
            shapes |= {
                f"{block}.norm.weight": (c,),
                f"{block}.norm.bias": (c,),
                f"{block}.op.x_proj_weight": (4, projected, c),
                f"{block}.op.dt_projs_weight": (4, c, rank),
                f"{block}.op.dt_projs_bias": (4, c),
                f"{block}.op.A_logs": (directions, 1),
                f"{block}.op.Ds": (directions,),
                f"{block}.op.in_proj.weight": (c, c),
                f"{block}.op.conv2d.weight": (c, 1, 3, 3),
                f"{block}.op.out_norm.weight": (c,),
                f"{block}.op.out_norm.bias": (c,),
                f"{block}.op.out_proj.weight": (c, c),
                f"{block}.norm2.weight": (c,),
                f"{block}.norm2.bias": (c,),
                f"{block}.mlp.fc1.weight": (hidden, c),
                f"{block}.mlp.fc1.bias": (hidden,),
                f"{block}.mlp.fc2.weight": (c, hidden),
                f"{block}.mlp.fc2.bias": (c,),
            }
    return shapes


def small_vanilla_shapes() -> Shapes:
    """A vanilla VMamba of 8, 16, 32 and 64 channels, one block a stage, 5 classes, under its own names."""
    shapes: Shapes = {
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "patch_embed.proj.bias": (8,),
        "patch_embed.norm.weight": (8,),
        "patch_embed.norm.bias": (8,),
        "norm.weight": (64,),
        "norm.bias": (64,),
        "head.weight": (5, 64),
        "head.bias": (5,),
    }
    for stage, (c, d, rank) in enumerate(((8, 16, 1), (16, 32, 1), (32, 64, 2), (64, 128, 4))):
        block = f"layers.{stage}.blocks.0"
        shapes |= {
            f"{block}.ln_1.weight": (c,),
            f"{block}.ln_1.bias": (c,),
            f"{block}.self_attention.x_proj_weight": (4, rank + 32, d),
            f"{block}.self_attention.dt_projs_weight": (4, d, rank),
            f"{block}.self_attention.dt_projs_bias": (4, d),
            f"{block}.self_attention.A_logs": (4 * d, 16),
            f"{block}.self_attention.Ds": (4 * d,),
            f"{block}.self_attention.in_proj.weight": (2 * d, c),
            f"{block}.self_attention.conv2d.weight": (d, 1, 3, 3),
            f"{block}.self_attention.conv2d.bias": (d,),
            f"{block}.self_attention.out_norm.weight": (d,),
            f"{block}.self_attention.out_norm.bias": (d,),
            f"{block}.self_attention.out_proj.weight": (c, d),
        }
        if stage < 3:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * c, 4 * c)
            shapes[f"layers.{stage}.downsample.norm.weight"] = (4 * c,)
            shapes[f"layers.{stage}.downsample.norm.bias"] = (4 * c,)
    return shapes


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Values that differ from each other and keep a network within bounds."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 4
        state[name] = torch.randn(shape, generator=generator) / fan_in**0.5
    return state


@dataclass
class ReleasedForward:
    """The forward pass over the tensors of a checkpoint under the names that most have, in float64."""

    state: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name].double()

    def has(self, name: str) -> bool:
        return name in self.state

    def norm(self, x: Tensor, name: str) -> Tensor:
        """LayerNorm over the channels of (B, C, H, W)."""
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return scaled * self[f"{name}.weight"][:, None, None] + self[f"{name}.bias"][:, None, None]

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = torch.einsum("bchw,oc->bohw", x, self[f"{name}.weight"])
        return y + self[f"{name}.bias"][:, None, None] if self.has(f"{name}.bias") else y

    def stages(self, picture: Tensor) -> list[Tensor]:
        x = picture.double()
        if self.has("patch_embed.5.weight"):
            x = F.conv2d(x, self["patch_embed.0.weight"], self["patch_embed.0.bias"], stride=2, padding=1)
            x = F.gelu(self.norm(x, "patch_embed.2"))
            x = F.conv2d(x, self["patch_embed.5.weight"], self["patch_embed.5.bias"], stride=2, padding=1)
            x = self.norm(x, "patch_embed.7")
        else:
            x = F.conv2d(x, self["patch_embed.0.weight"], self["patch_embed.0.bias"], stride=4)
            x = self.norm(x, "patch_embed.2")
        outputs = []
        for stage in range(4):
            number = 0
            while self.has(f"layers.{stage}.blocks.{number}.norm.weight"):
                x = self.block(x, f"layers.{stage}.blocks.{number}")
                number += 1
            outputs.append(x)
            if stage < 3:
                x = self.downsample(x, f"layers.{stage}.downsample")
        return outputs

    def logits(self, picture: Tensor) -> Tensor:
        x = self.norm(self.stages(picture)[-1], "classifier.norm").mean((2, 3))
        return x @ self["classifier.head.weight"].T + self["classifier.head.bias"]

    def block(self, x: Tensor, name: str) -> Tensor:
        x = x + self.mixer(self.norm(x, f"{name}.norm"), f"{name}.op")
        if self.has(f"{name}.norm2.weight"):
            hidden = F.gelu(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
            x = x + self.linear(hidden, f"{name}.mlp.fc2")
        return x

    def downsample(self, x: Tensor, name: str) -> Tensor:
        if self.has(f"{name}.1.weight"):
            x = F.conv2d(x, self[f"{name}.1.weight"], self[f"{name}.1.bias"], stride=2, padding=1)
            return self.norm(x, f"{name}.3")
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        parts = [x[:, :, 0::2, 0::2], x[:, :, 1::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 1::2]]
        return self.linear(self.norm(torch.cat(parts, 1), f"{name}.norm"), f"{name}.reduction")

    def mixer(self, x: Tensor, name: str) -> Tensor:
        x = self.linear(x, f"{name}.in_proj")
        d = self[f"{name}.Ds"].numel() // 4
        x, gate = x[:, :d], x[:, d:]
        bias = self[f"{name}.conv2d.bias"] if self.has(f"{name}.conv2d.bias") else None
        u = F.silu(F.conv2d(x, self[f"{name}.conv2d.weight"], bias, padding=1, groups=d))
        y = cross_scan(
            u,
            self[f"{name}.x_proj_weight"],
            self[f"{name}.dt_projs_weight"],
            self[f"{name}.dt_projs_bias"],
            self[f"{name}.A_logs"],
            self[f"{name}.Ds"],
        )
        y = self.norm(y, f"{name}.out_norm")
        return self.linear(y * F.silu(gate) if gate.shape[1] else y, f"{name}.out_proj")


def cross_scan(
    u: Tensor, x_proj: Tensor, dt_projs: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor
) -> Tensor:
    """Four sequences out of a map (B, d, H, W), a selective scan of each, and their sum as a map again.

    The sequences: rows one after the other, columns one after the other, and these two backwards.
    """
    d, height, width = u.shape[1:]
    by_row, by_column = u.flatten(2), u.transpose(2, 3).flatten(2)  # (B, d, L)
    total = torch.zeros_like(u)
    for k, sequence in enumerate((by_row, by_column, by_row.flip(2), by_column.flip(2))):
        own = slice(k * d, (k + 1) * d)
        y = selective_scan(sequence, x_proj[k], dt_projs[k], dt_bias[k], A_logs[own], Ds[own])
        if k >= 2:
            y = y.flip(2)
        if k % 2:
            total = total + y.unflatten(2, (width, height)).transpose(2, 3)
        else:
            total = total + y.unflatten(2, (height, width))
    return total


def selective_scan(
    x: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor
) -> Tensor:
    """x (B, d, L): h ← exp(Δ A) h + Δ B x, y = C h + D x, one step after the other."""
    rank, states = dt_proj.shape[1], A_log.shape[1]
    h = x.new_zeros(x.shape[0], x.shape[1], states)
    outputs = []
    for step in range(x.shape[2]):
        now = x[:, :, step]  # (B, d)
        projected = now @ x_proj.T
        low, B, C = projected[:, :rank], projected[:, rank : rank + states], projected[:, rank + states :]
        delta = torch.log1p(torch.exp(low @ dt_proj.T + dt_bias))  # (B, d)
        decay = torch.exp(-delta[:, :, None] * torch.exp(A_log))
        h = decay * h + (delta * now)[:, :, None] * B[:, None, :]
        outputs.append((h * C[:, None, :]).sum(2) + D * now)
    return torch.stack(outputs, 2)
