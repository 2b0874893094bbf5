"""Released checkpoints: three schemes of names, and which variant a state dict is of."""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from pmavae.errors import WeightsError
from pmavae.files.header import MAX_NUMBER
from pmavae.network_configs import VMAMBA, VMambaConfig
from pmavae.pretrained.weights import sides, state_faults
from pmavae.scan import DIRECTIONS

_STAGES = 4
# Names that were used before or after those that most checkpoints have.
_RENAMED = (
    (re.compile(r"^patch_embed\.proj\."), "patch_embed.0."),
    (re.compile(r"^patch_embed\.norm\."), "patch_embed.2."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.ln_1\."), r"\1.norm."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.self_attention\."), r"\1.op."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+\.op)\.x_proj\.weight$"), r"\1.x_proj_weight"),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+\.op)\.dt_projs\.weight$"), r"\1.dt_projs_weight"),
    (re.compile(r"^norm\."), "classifier.norm."),
    (re.compile(r"^head\."), "classifier.head."),
)
_BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.")
_MATRIX = re.compile(r"\.(in_proj|out_proj|fc1|fc2)\.weight$")


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names and in the shapes of `VMamba`; what is not known keeps its name.

    The weights of Δ, B and C are grouped 1 × 1 convolutions in some checkpoints, which lie in memory as the
    stacked matrices of the others do, and so are linear layers.
    """
    result: dict[str, Tensor] = {}
    for old, tensor in state.items():
        name = _new_name(old)
        if name in result:
            raise WeightsError(f"a state dict has {name} under two names: leave out {old:.80}")
        if old.endswith((".x_proj.weight", ".dt_projs.weight")):
            tensor = _stacked(old, tensor)
        elif _MATRIX.search(name):
            tensor = tensor.flatten(1) if tensor.dim() > 1 else tensor
        result[name] = tensor
    return result


def is_vmamba(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict, under any of the names, looks like one of a VMamba."""
    names = {_new_name(name) for name in state if name.startswith("layers.0.blocks.0.")}
    return {"layers.0.blocks.0.op.A_logs", "layers.0.blocks.0.op.x_proj_weight"} <= names


def _new_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def config_of(state: Mapping[str, Tensor]) -> VMambaConfig:
    """The configuration that some shapes of a `renamed` state dict imply, with the name of its variant.

    Raises WeightsError, in a few words for a sentence that names the file, where they imply none.
    """
    blocks = {(int(m[1]), int(m[2])) for name in state if (m := _BLOCK.match(name))}
    depths = [1 + max((j for i, j in blocks if i == stage), default=-1) for stage in range(_STAGES)]
    if not all(depths) or any(i >= _STAGES for i, _ in blocks):
        _refuse(f"it does not have blocks in {_STAGES} stages")
    if sum(depths) > len(blocks):
        _refuse("the numbers of its blocks have gaps")
    channels = [_size(state, f"layers.{stage}.blocks.0.norm.weight", 0) for stage in range(_STAGES)]
    first = "layers.0.blocks.0"
    inner = _size(state, f"{first}.op.out_norm.weight", 0)
    fields: dict[str, Any] = {
        "generation": "v05" if f"{first}.mlp.fc1.weight" in state else "v0",
        "channels": tuple(channels),
        "depths": tuple(depths),
        "ssm_ratio": inner / channels[0],
        "d_state": _size(state, f"{first}.op.A_logs", 1),
        "classes": _size(state, "classifier.head.weight", 0),
    }
    if fields["generation"] == "v05":
        fields["mlp_ratio"] = _size(state, f"{first}.mlp.fc1.weight", 0) / channels[0]
    if (largest := max(*channels, fields["classes"])) > MAX_NUMBER:
        _refuse(f"it is {largest} wide; at most {MAX_NUMBER} are read")
    shape = {name: value for name, value in fields.items() if name != "classes"}
    ours = (name for name, known in VMAMBA.items() if shape.items() <= vars(known).items())
    try:
        return VMambaConfig(preset=next(ours, "vmamba"), **fields)
    except ValueError as reason:
        _refuse(str(reason))


def check_shapes(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise WeightsError, as `config_of` does, for tensors that are missing, unknown or of another shape."""
    odd = state_faults(state, expected)
    if odd:
        _refuse(", ".join(odd[:3]) + (f" and {len(odd) - 3} more" if len(odd) > 3 else ""))


def _stacked(name: str, tensor: Tensor) -> Tensor:
    """The kernel of a grouped convolution, (4 · rows, columns, 1), as (4, rows, columns)."""
    if tensor.dim() < 2 or not tensor.numel() or tensor.shape[0] % DIRECTIONS:
        _refuse(f"{name:.80} has the shape {sides(tensor.shape)}")
    return tensor.flatten(1).unflatten(0, (DIRECTIONS, -1))


def _size(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in state:
        _refuse(f"it has no {name}")
    if state[name].dim() <= axis or not state[name].numel():
        _refuse(f"{name} has the shape {sides(state[name].shape)}")
    return state[name].shape[axis]


def _refuse(reason: str) -> NoReturn:
    raise WeightsError(f"it is no state dict of a VMamba: {reason}")
