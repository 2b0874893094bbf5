"""The networks of tasks that have one of their own."""

from __future__ import annotations

from pathlib import Path

from pmavae.autoencoder import PMAVAE
from pmavae.network_config import NetworkConfig
from pmavae.pretrained.manifest import WeightsIndex
from pmavae.pretrained.network import Builder, TaskNetwork
from pmavae.pretrained.weightless import weightless
from pmavae.pretrained.weights import AnyConfig, Shapes, shapes_of
from pmavae.restoration.config import RestorationConfig
from pmavae.restoration.network import Restorer
from pmavae.restoration.presets import TASKS as RESTORATIONS
from pmavae.style_transfer.config import FeatureConfig
from pmavae.style_transfer.features import FeatureNetwork
from pmavae.texture.config import TASK as TEXTURE
from pmavae.texture.config import TextureConfig
from pmavae.texture.network import TexturePrior
from pmavae.vmamba.config import VMambaConfig
from pmavae.vmamba.network import VMamba

TaskModel = Restorer | TexturePrior | TaskNetwork
CODEC_BOUND = frozenset({TEXTURE})  # tasks whose network serves one autoencoder's latents alone


def network_shapes(config: AnyConfig) -> Shapes | None:
    """The tensors of a network of this configuration, by name; None for that of a plugin."""
    if isinstance(config, NetworkConfig):
        return None
    with weightless():
        match config:
            case RestorationConfig():
                return shapes_of(Restorer(config))
            case TextureConfig():
                return shapes_of(TexturePrior(config))
            case FeatureConfig():
                return shapes_of(FeatureNetwork(config))
            case VMambaConfig():
                return shapes_of(VMamba(config))
        return shapes_of(PMAVAE(config))


def load_task_model(
    name_or_path: str | Path,
    task: str,
    build: Builder | None = None,
    index: WeightsIndex | None = None,
) -> TaskModel:
    """Load a manifest id, a preset's weights for a task, a weights file, or a folder with one.

    `build` makes the network of a task that is not pmavae's own; without an index, the weights that come with
    pmavae have names. The network is on the CPU in float32 and in evaluation mode. Raises WeightsError, in
    one sentence, where the weights are missing, damaged, or of another task.
    """
    if task == TEXTURE:
        return TexturePrior.from_pretrained(name_or_path, index)
    if task in RESTORATIONS or build is None:
        return Restorer.from_pretrained(name_or_path, task, index)
    return TaskNetwork.from_pretrained(name_or_path, task, build, index)
