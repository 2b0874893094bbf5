"""Weights files, the manifest of the released ones, and how a name becomes a file.

A weights file is a safetensors file whose header says which architecture and which configuration
its tensors belong to, so that it can be loaded without being told. Nothing else is ever read: no
pickle, no code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pmavae.config import ModelConfig
from pmavae.errors import WeightsError
from pmavae.json_values import is_label
from pmavae.manifest import Manifest as Manifest
from pmavae.manifest import WeightsEntry, WeightsIndex, released_weights
from pmavae.manifest import weights_folder as weights_folder
from pmavae.network_config import NetworkConfig, is_settings
from pmavae.refinement.config import TASK as FEATURES
from pmavae.refinement.config import FeatureConfig
from pmavae.restoration.config import RestorationConfig
from pmavae.restoration.presets import TASKS as RESTORATIONS
from pmavae.tensor_file import (
    METADATA_KEY,
    TensorFile,
    open_tensor_file,
    to_json,
    write_tensor_file,
)
from pmavae.texture.config import TASK as TEXTURE
from pmavae.texture.config import TextureConfig

ARCHITECTURE_VERSION = 1  # goes up when the same configuration gets other parameters or another meaning
FOLDER_FILE = "model.safetensors"  # the weights file in a folder of weights
MAX_WIDTH = 8192  # channels and blocks beyond it are an attack on memory, not a model

AnyConfig = ModelConfig | RestorationConfig | TextureConfig | FeatureConfig | NetworkConfig
_TASK_CONFIGS: dict[str, type[AnyConfig]] = {
    **dict.fromkeys(RESTORATIONS, RestorationConfig),
    TEXTURE: TextureConfig,
    FEATURES: FeatureConfig,
}


def resolve_weights(
    name: str | Path, task: str = "base", index: WeightsIndex | None = None
) -> tuple[Path, WeightsEntry | None]:
    """The file that a name stands for, and its manifest entry where it has one.

    A name is an id of the index, a preset, which stands for its weights for `task`, a weights file, or a
    folder that holds model.safetensors; `./tiny` is a path where `tiny` is the preset. Without an index, the
    weights that come with pmavae have names. Raises WeightsError, listing the known names.
    """
    index = index or released_weights(weights_folder())
    entry = index.find(name, task) if isinstance(name, str) else None
    if entry is not None:
        return index.path(entry), entry
    path = Path(name)
    if path.is_file():
        return path, None
    if (path / FOLDER_FILE).is_file():
        return path / FOLDER_FILE, None
    raise WeightsError(
        f"there are no weights {name}: it is no file, no folder with {FOLDER_FILE}, and not one of the "
        f"released weights ({', '.join(index.names()) or 'none'})"
    )


@dataclass(frozen=True)
class LoadedWeights:
    """A weights file in memory."""

    config: AnyConfig
    state: dict[str, Tensor]  # float32, on the CPU
    id: str
    sha256: str  # of the file


def load_weights(path: str | Path, entry: WeightsEntry | None = None) -> LoadedWeights:
    """Read and check a weights file.

    With a manifest entry, the file must be the very one that the entry describes. Raises
    WeightsError, naming the file, where it is missing, damaged or changed, of another architecture
    version, or holds values that are not finite.
    """
    try:
        with Path(path).open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as reason:
        raise WeightsError(f"{path} cannot be read: {reason.strerror or reason}") from None
    if entry is not None and sha256 != entry.sha256:
        raise WeightsError(
            f"{path} is damaged or was changed: its SHA-256 is {sha256[:8]}…, that of {entry.id} is "
            f"{entry.sha256[:8]}…; install pmavae again"
        )
    with open_tensor_file(path, name=str(path), error=WeightsError) as file:
        header = file.header("weights")
        architecture = header.get("architecture")
        if architecture != ARCHITECTURE_VERSION:
            file.refuse(
                f"is of architecture version {architecture!r:.40}, this pmavae has {ARCHITECTURE_VERSION}: "
                "use the pmavae that made it, or newer weights"
            )
        config = _config(file, header)
        state = file.tensors()
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                file.refuse(f"is damaged: {name!r:.80} has values that are not finite")
    state = {name: tensor.float() for name, tensor in state.items()}
    return LoadedWeights(config, state, header["id"], sha256)


def fill(model: nn.Module, loaded: LoadedWeights, path: Path) -> None:
    """Put weights into a model of their configuration, and it into evaluation mode.

    Raises WeightsError, naming the file, where a tensor is missing, unknown or of another shape.
    """
    try:
        model.load_state_dict(loaded.state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} does not fit preset {loaded.config.preset}: {reason}") from None
    model.weights_id, model.weights_sha256 = loaded.id, loaded.sha256  # type: ignore[assignment]
    model.eval()


def save_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: AnyConfig,
    weights_id: str,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a weights file, atomically; the same bytes for the same input.

    `dtype` is float16, bfloat16 or float32. Raises WeightsError, naming the file, where it cannot be
    written or where a value is not finite in `dtype`.
    """
    if not is_label(weights_id):
        raise WeightsError(
            f"{path} was not written: {weights_id!r:.80} is no id (1 to 100 printable characters)"
        )
    # A count, as batch norms keep one, would not fit into 16 bits.
    tensors = {
        name: tensor.to(dtype if tensor.is_floating_point() else torch.float32)
        for name, tensor in state.items()
    }
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            kind = str(dtype).removeprefix("torch.")
            raise WeightsError(f"{path} was not written: {name} has values that are not finite in {kind}")
    header = {
        "format": "weights",
        "architecture": ARCHITECTURE_VERSION,
        "config": config.to_dict(),
        "id": weights_id,
    }
    write_tensor_file(path, tensors, {METADATA_KEY: to_json(header)}, error=WeightsError)


def save_folder(folder: str | Path, state: Mapping[str, Tensor], config: AnyConfig, weights_id: str) -> Path:
    """Write FOLDER_FILE (fp16) into a folder, which is made where there is none; returns the file's path.

    Raises as `save_weights` does, and OSError where the folder cannot be made.
    """
    path = Path(folder) / FOLDER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, state, config, weights_id)
    return path


def _config(file: TensorFile, header: dict[str, Any]) -> AnyConfig:
    """The configuration in a header, each field of its type and of a size that a model can have."""
    if set(header) != {"format", "architecture", "config", "id"} or not is_label(header["id"]):
        file.refuse("is damaged: its header is not valid")
    if not isinstance(data := header["config"], dict):
        file.refuse("is damaged: its configuration is not valid")
    kind: type[AnyConfig] = ModelConfig
    if "task" in data:
        kind = _TASK_CONFIGS.get(str(data["task"]), NetworkConfig)
    checks: dict[str, Callable[[Any], bool]] = {
        "str": is_label,
        "int": _is_width,
        "float": lambda v: type(v) in (int, float) and 0 < v <= 64,
        "tuple[int, int, int, int]": lambda v: _is_width_list(v, 4),
        "tuple[int, int, int]": lambda v: _is_width_list(v, 3),
        "tuple[int, ...]": _is_width_list,
        "dict[str, Any]": is_settings,
    }
    for f in fields(kind):
        value = data.get(f.name)
        if f.name == "paint_blocks" and isinstance(value, list):
            value = [count or 1 if type(count) is int else count for count in value]  # a stage may have none
        if f.name in data and not checks[str(f.type)](value):
            file.refuse(f"is damaged: its configuration has {f.name} = {data[f.name]!r:.40}")
    try:
        return kind.from_dict(data)
    except ValueError as reason:
        file.refuse(f"has a configuration that does not fit this pmavae: {reason!s:.200}")


def _is_width(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_WIDTH


def _is_width_list(value: Any, length: int | None = None) -> bool:
    if not isinstance(value, list) or len(value) != (length or len(value)):
        return False
    return all(map(_is_width, value))
