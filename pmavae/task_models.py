"""The networks of tasks that have one of their own."""

from __future__ import annotations

from pathlib import Path

from pmavae.restoration.network import Restorer
from pmavae.texture.config import TASK as TEXTURE
from pmavae.texture.network import TexturePrior

TaskModel = Restorer | TexturePrior
CODEC_BOUND = frozenset({TEXTURE})  # tasks whose network serves one autoencoder's latents alone


def load_task_model(name_or_path: str | Path, task: str) -> TaskModel:
    """Load a manifest id, a preset's weights for a task, a weights file, or a folder with one.

    The network is on the CPU in float32 and in evaluation mode. Raises WeightsError, in one sentence, where
    the weights are missing, damaged, or of another task.
    """
    if task == TEXTURE:
        return TexturePrior.from_pretrained(name_or_path)
    return Restorer.from_pretrained(name_or_path, task)
