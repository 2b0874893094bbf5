"""VMamba: a stem, four stages, and a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmavae.errors import WeightsError
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.weights import (
    FOLDER_FILE,
    AnyConfig,
    load_network,
    resolve_weights,
    save_weights,
    wrong_task,
)
from pmavae.vmamba.blocks import VSSBlock, downsampling, patch_embedding
from pmavae.vmamba.config import TASK, VMAMBA, VMambaConfig


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
        y: Tensor = self.head(self.norm(x).mean((1, 2)))
        return y


class VMamba(nn.Module):
    """A classifier of pictures that serves as a backbone too.

    Pictures are (B, 3, H, W) in [0, 1], less `pmavae.vmamba.MEAN` and divided by `STD`; any H and W from
    4 px. `VMamba(config)` is untrained, with the initial values of the paper's code; `drop_path` is the
    rate of the last block, from which it falls to 0 at the first (`config.DROP_PATH` has those of the paper).
    A_logs, Ds and biases are to be trained without weight decay.
    """

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
        self.weights_id = "untrained"
        self.weights_sha256 = ""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes)."""
        y: Tensor = self.classifier(self._stages(x)[-1])
        return y

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
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        index: WeightsIndex | None = None,
        *,
        revision: str | None = None,
        offline: bool = False,
    ) -> VMamba:
        """Load a weights file, a folder with model.safetensors, or `org/name[@revision][:file]` on the Hub.

        Released checkpoints become weights files by `pmavae weights import`. The model is on the CPU in
        float32 and in evaluation mode. Raises WeightsError, in one sentence, where the file is missing,
        damaged, or of another network.
        """
        if str(path_or_name) in VMAMBA and not Path(path_or_name).exists():
            raise WeightsError(
                f"weights of {path_or_name} do not come with pmavae: make a file of a released checkpoint "
                "with pmavae weights import vmamba.pth -o vmamba.safetensors, and give that"
            )
        path, entry = resolve_weights(path_or_name, TASK, index, revision=revision, offline=offline)

        def make(config: AnyConfig) -> VMamba:
            if isinstance(config, VMambaConfig):
                return cls(config)
            raise wrong_task(path, config, TASK)

        return load_network(path, entry, make)

    @classmethod
    def from_checkpoint(cls, state: Mapping[str, Tensor]) -> VMamba:
        """The model of a released state dict, under any of its names, in evaluation mode.

        Raises WeightsError where the tensors are not those of a VMamba.
        """
        from pmavae.vmamba.checkpoints import config_of, renamed

        state = renamed(state)
        model = cls(config_of(state))
        model.load_state_dict(state)
        return model.eval()

    def save_pretrained(
        self, folder: str | Path, weights_id: str | None = None, dtype: torch.dtype = torch.float32
    ) -> Path:
        """Write `model.safetensors` into the folder, which is made where there is none; returns its path.

        Raises WeightsError where it cannot be written.
        """
        path = Path(folder) / FOLDER_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = self.state_dict()
        save_weights(path, state, self.config, weights_id or self.weights_id, dtype)
        return path
