"""Weights files, read and written.

A weights file is a safetensors file whose header says which architecture and which configuration
its tensors belong to, so that it can be loaded without being told. Nothing else is ever read: no
pickle, no code.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pmavae.config import ModelConfig
from pmavae.errors import WeightsError
from pmavae.files.header import (
    BLANK,
    CHECKSUM_KEY,
    MAX_NUMBER,
    MAX_SETTINGS,
    METADATA_KEY,
    FileDigest,
    is_label,
    is_settings,
    stamped,
)
from pmavae.files.tensors import (
    HeaderTooLargeError,
    TensorFile,
    open_tensor_file,
    tensor_file_bytes,
    to_json,
    write_atomically,
)
from pmavae.network_configs import (
    FEATURES_TASK,
    RESTORATIONS,
    TEXTURE_TASK,
    VMAMBA_TASK,
    FeatureConfig,
    NetworkConfig,
    RestorationConfig,
    TextureConfig,
    VMambaConfig,
)
from pmavae.pretrained.manifest import MODEL_FILE, WeightsEntry

ARCHITECTURE_VERSION = 1  # goes up when the same configuration gets other parameters or another meaning
MAX_BYTES = 2**31  # of tensors: a billion parameters in fp16, a hundred times those of the largest preset
METADATA_KEYS = frozenset({METADATA_KEY, CHECKSUM_KEY, "format"})  # "format": what other libraries write

AnyConfig = ModelConfig | RestorationConfig | TextureConfig | FeatureConfig | VMambaConfig | NetworkConfig
Shapes = Mapping[str, tuple[int, ...]]
_TASK_CONFIGS: dict[str, type[AnyConfig]] = {
    **dict.fromkeys(RESTORATIONS, RestorationConfig),
    TEXTURE_TASK: TextureConfig,
    FEATURES_TASK: FeatureConfig,
    VMAMBA_TASK: VMambaConfig,
}


@dataclass(frozen=True)
class LoadedWeights:
    """A weights file in memory."""

    config: AnyConfig
    state: dict[str, Tensor]  # float32, on the CPU
    id: str
    sha256: str  # of the file


def load_weights(
    path: str | Path,
    entry: WeightsEntry | None = None,
    shapes: Callable[[AnyConfig], Shapes | None] | None = None,
) -> LoadedWeights:
    """Read and check a weights file; hash and tensors are of one reading.

    With a manifest entry, the file must be the very one that the entry describes. `shapes` gives the
    tensors that a configuration implies, or None where that is not known: a file with others is refused
    before one of them is read. Raises
    WeightsError, naming the file, where it is missing, damaged or changed, no regular file, of another
    architecture version, larger than MAX_BYTES, or holds values that are not finite.
    """
    digest = FileDigest()
    state = {}
    infinite = []
    with open_tensor_file(
        path, name=str(path), error=WeightsError, digest=digest, pipes=False, remedy=_IMPORT
    ) as file:
        header = _header(file)
        if file.metadata.get(CHECKSUM_KEY) != digest.stated:
            file.refuse("is damaged: its checksum is not valid")
        config = _config(file, header)
        if file.size > MAX_BYTES:
            file.refuse(f"has {file.size} bytes of tensors; at most {MAX_BYTES} are read")
        if shapes is not None:
            _check_shapes(file, config, shapes)
        for name, tensor in file.read():
            state[name] = tensor.float()
            # A value that is not finite makes one of the two so, in a tenth of the time of isfinite.
            least, most = torch.aminmax(state[name])
            if not (least.isfinite() and most.isfinite()):
                infinite.append(name)
        if entry is not None and digest.sha256 != entry.sha256:
            raise WeightsError(
                f"{path} is damaged or was changed: its SHA-256 is {digest.sha256[:8]}…, that of "
                f"{entry.id} is {entry.sha256[:8]}…; install pmavae again"
            )
        if not digest.matches:
            file.refuse("is damaged: its checksum does not match")
        if infinite:
            file.refuse(f"is damaged: {infinite[0]!r:.80} has values that are not finite")
    return LoadedWeights(config, state, header["id"], digest.sha256)


_IMPORT = (
    ", and weights are read from nothing else: make such a file of a PyTorch checkpoint (.pth, .bin, .ckpt) "
    "with pmavae weights import"
)


def shapes_of(network: nn.Module) -> Shapes:
    """The shapes of a network's state dict, by name."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _check_shapes(file: TensorFile, config: AnyConfig, shapes: Callable[[AnyConfig], Shapes | None]) -> None:
    """Refuse a file that does not have the tensors of its configuration."""
    blocks = _blocks(config)
    if blocks > len(file.shapes):  # before a network of as many is made
        file.refuse(
            f"is damaged: its configuration has {blocks} blocks, and it has {len(file.shapes)} tensors"
        )
    try:
        expected = shapes(config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as reason:
        file.refuse(f"has a configuration of which no network can be made: {_printable(reason)}")
    if expected is None:
        return
    if odd := sorted(set(expected) ^ set(file.shapes)):
        what = "is missing" if odd[0] in expected else "is not known to it"
        file.refuse(f"does not fit preset {config.preset}: tensor {odd[0]!r:.80} {what}")
    for name, shape in file.shapes.items():
        if shape != expected[name]:
            file.refuse(
                f"does not fit preset {config.preset}: tensor {name!r:.80} has the shape {shape}, its "
                f"configuration has {expected[name]}"
            )


def _blocks(config: AnyConfig) -> int:
    """How many blocks, each with a tensor at least, a network of this configuration has at least."""
    counts = [value for key, value in config.to_dict().items() if key.endswith(("blocks", "depths", "depth"))]
    return sum(sum(count) if isinstance(count, list) else count for count in counts)


def _printable(reason: Exception) -> str:
    """What an error says, in one line of 200 characters at most."""
    text = " ".join(str(reason).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in text)


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
    try:
        data = tensor_file_bytes(tensors, {METADATA_KEY: to_json(header), CHECKSUM_KEY: BLANK})
    except HeaderTooLargeError as reason:
        raise WeightsError(f"{path} was not written: {reason}; give the tensors shorter names") from None
    write_atomically(path, stamped(data), error=WeightsError)


def save_folder(
    folder: str | Path,
    state: Mapping[str, Tensor],
    config: AnyConfig,
    weights_id: str,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write MODEL_FILE into a folder, which is made where there is none; returns the file's path.

    Raises as `save_weights` does, and OSError where the folder cannot be made.
    """
    path = Path(folder) / MODEL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, state, config, weights_id, dtype)
    return path


def _header(file: TensorFile) -> dict[str, Any]:
    """The header of a weights file of this architecture version, each field there and no other."""
    header = file.header("weights")
    if unknown := sorted(set(file.metadata) - METADATA_KEYS):
        file.refuse(f"is damaged: its metadata has an unknown field {unknown[0]!r:.40}")
    architecture = header.get("architecture")
    if type(architecture) is not int or architecture != ARCHITECTURE_VERSION:
        file.refuse(
            f"is of architecture version {architecture!r:.40}, this pmavae has {ARCHITECTURE_VERSION}: "
            "use the pmavae that made it, or newer weights"
        )
    if set(header) != {"format", "architecture", "config", "id"} or not is_label(header["id"]):
        file.refuse("is damaged: its header is not valid")
    return header


def _config(file: TensorFile, header: dict[str, Any]) -> AnyConfig:
    """The configuration in a header, each field of its type and of a size that a model can have."""
    if not isinstance(data := header["config"], dict):
        file.refuse("is damaged: its configuration is not valid")
    kind: type[AnyConfig] = ModelConfig
    if "task" in data:
        kind = _TASK_CONFIGS.get(str(data["task"]), NetworkConfig)
    checks: dict[Any, Callable[[Any], bool]] = {
        str: is_label,
        int: lambda v: _are_widths([v]),
        float: lambda v: type(v) in (int, float) and 0 < v <= 64,
        tuple[int, int, int, int]: lambda v: _are_widths(v, 4),
        tuple[int, int, int]: lambda v: _are_widths(v, 3),
        tuple[int, ...]: _are_widths,
        dict[str, Any]: is_settings,
    }
    for f in fields(kind):
        value = data.get(f.name)
        if f.name == "paint_blocks" and isinstance(value, list):
            value = [count or 1 if type(count) is int else count for count in value]  # a stage may have none
        if f.name in data and not checks[f.type](value):
            file.refuse(f"is damaged: its configuration has {f.name} = {data[f.name]!r:.40}")
    try:
        return kind.from_dict(data)
    except ValueError as reason:
        file.refuse(f"has a configuration that does not fit this pmavae: {_printable(reason)}")


def _are_widths(value: Any, length: int | None = None) -> bool:
    if not isinstance(value, list) or len(value) != (length or len(value)) or len(value) > MAX_SETTINGS:
        return False
    return all(type(v) is int and 1 <= v <= MAX_NUMBER for v in value)


_FILLS = frozenset((Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_))


@contextmanager
def weightless() -> Iterator[None]:
    """Networks that are made in here are on torch's meta device, where a tensor is a shape and a dtype.

    Their initial values are not drawn: on that device, drawing loads half of torch's compiler, which takes
    more time than reading the weights.
    """
    with torch.device("meta"), _NoInitialValues():
        yield


class _NoInitialValues(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def state_faults(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A few words for each tensor that is missing, unknown or of another shape; none where all fit."""
    return [
        *(f"it has no {name}" for name in expected if name not in state),
        *(f"{name:.80} is unknown" for name in state if name not in expected),
        *(
            f"{name} has the shape {sides(state[name].shape)} instead of {sides(shape)}"
            for name, shape in expected.items()
            if name in state and tuple(state[name].shape) != shape
        ),
    ]


def sides(shape: Iterable[int]) -> str:
    """A shape for messages: 3 × 4."""
    return " × ".join(map(str, shape)) or "a single number"
