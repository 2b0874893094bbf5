"""Latent files, version 1: one picture's latents, or its style alone, and what is needed to use them again.

The format is described for other languages in docs/latent-files.md.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmavae.config import MIN_SIZE, ModelConfig
from pmavae.errors import LatentFileError, WeightsMismatchError
from pmavae.files.header import METADATA_KEY, is_label, is_sha256, is_string_map
from pmavae.files.tensors import (
    HeaderTooLargeError,
    TensorFile,
    open_tensor_file,
    raw_bytes,
    tensor_file_bytes,
    to_json,
    write_atomically,
)
from pmavae.latents import Latents, Style, expected_shapes, padded

LATENT_VERSION = 1
LATENT_CHECKSUM_KEY = "pmavae_crc32"
MAX_SIZE = 2**20  # pixels a side: far above any picture, far below any overflow
_MEANS = frozenset({"z_base", "z_detail", "z_style"})
_LOGVARS = frozenset({"logvar_base", "logvar_detail"})
_STYLE = frozenset({"z_style"})
_FIELDS = frozenset(
    ("format", "version", "preset", "weights_id", "weights_sha256", "width", "height", "padding", "picture")
)


@dataclass(frozen=True)
class LatentHeader:
    """What a latent file says about its latents beside their size."""

    preset: str  # names the ModelConfig, and with it the shapes
    weights_id: str  # the weights that encoded the picture, the only ones that can decode it
    weights_sha256: str  # of the weights file; empty for a model that was never saved
    picture: dict[str, str] = field(default_factory=dict)  # carried metadata, passed through as it is


def latents_to_bytes(
    held: Latents | Style, header: LatentHeader, dtype: torch.dtype = torch.float16
) -> bytes:
    """A latent file in memory, of latents or of a style alone; the same bytes for the same input.

    The latents are of one picture: tensors (1, C, H, W). Log-variances are written where present.
    `dtype` is float16, bfloat16 or float32. Raises LatentFileError for a batch of several pictures,
    for values that are not finite in `dtype`, and for picture metadata beyond the size of a header.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in held.tensors().items():
        if tensor.dim() != 4 or tensor.shape[0] != 1:
            raise LatentFileError(
                f"a latent file holds one picture, but {name} has the shape {tuple(tensor.shape)}"
            )
        tensors[name] = tensor[0].to(dtype)
        if not tensors[name].isfinite().all():
            kind = str(dtype).removeprefix("torch.")
            raise LatentFileError(f"{name} has values that are not finite in {kind}; write float32 instead")
    width, height = held.width, held.height
    fields = {
        "format": "latent",
        "version": LATENT_VERSION,
        "preset": header.preset,
        "weights_id": header.weights_id,
        "weights_sha256": header.weights_sha256,
        "width": width,
        "height": height,
        "padding": [0, 0, padded(width) - width, padded(height) - height],
        "picture": header.picture,
    }
    if problem := _problem(fields):
        raise LatentFileError(f"a latent file cannot hold these latents: {problem}")
    text = to_json(fields)
    try:
        return tensor_file_bytes(tensors, {METADATA_KEY: text, LATENT_CHECKSUM_KEY: _checksum(text, tensors)})
    except HeaderTooLargeError:
        size = sum(map(len, header.picture.values()))
        raise LatentFileError(
            f"a latent file cannot hold the picture's metadata ({size} characters): strip it first"
        ) from None


def write_latents(
    path: str | Path, held: Latents | Style, header: LatentHeader, dtype: torch.dtype = torch.float16
) -> None:
    """Write a latent file; see `latents_to_bytes`. No half-written file is ever seen.

    Raises LatentFileError, naming the file, where it cannot be written.
    """
    try:
        data = latents_to_bytes(held, header, dtype)
    except LatentFileError as reason:
        raise LatentFileError(f"{path} was not written: {reason}") from None
    write_atomically(path, data, error=LatentFileError)


def read_latents(
    source: str | Path | bytes, config_for: Callable[[str], ModelConfig], *, name: str | None = None
) -> tuple[Latents, LatentHeader]:
    """Read a latent file, or its bytes, and check all of it.

    `config_for` gives the configuration of a preset and raises KeyError for one that it does not
    know: `PRESETS.__getitem__`. `name` is what messages call the file, its path by default. The
    latents are float32, with a batch dimension of 1. Raises LatentFileError in one sentence that
    names the file. Whether the right weights are loaded is for `check_weights` to say.
    """
    found, header = read_latents_or_style(source, config_for, name=name, styles=False)
    assert isinstance(found, Latents)
    return found, header


def read_latents_or_style(
    source: str | Path | bytes,
    config_for: Callable[[str], ModelConfig],
    *,
    name: str | None = None,
    styles: bool = True,
) -> tuple[Latents | Style, LatentHeader]:
    """What a latent file holds, a Style where that is all and `styles` are read; else as `read_latents`."""
    if name is None:
        name = "the latent file" if isinstance(source, bytes) else str(source)
    with open_tensor_file(source, name=name, error=LatentFileError) as file:
        fields = _checked_fields(file)
        try:
            config = config_for(fields["preset"])
        except KeyError:
            file.refuse(f"is of preset {fields['preset']}, which this pmavae does not have: upgrade pmavae")
        _check_shapes(file, config, fields["height"], fields["width"], styles)
        tensors = dict(file.read())
        checksum = file.metadata.get(LATENT_CHECKSUM_KEY)
        if checksum is not None and checksum != _checksum(file.metadata[METADATA_KEY], tensors):
            file.refuse("is damaged: its checksum does not match")
        for tensor_name, tensor in tensors.items():
            if not tensor.isfinite().all():
                file.refuse(f"is damaged: {tensor_name} has values that are not finite")
    batch = {tensor_name: tensor.float()[None] for tensor_name, tensor in tensors.items()}
    header = LatentHeader(
        fields["preset"], fields["weights_id"], fields["weights_sha256"], dict(fields["picture"])
    )
    width, height = fields["width"], fields["height"]
    if set(batch) == _STYLE:
        return Style(batch["z_style"], width=width, height=height), header
    return Latents(height=height, width=width, **batch), header


def check_weights(header: LatentHeader, weights_id: str, weights_sha256: str, name: str) -> None:
    """Raise WeightsMismatchError unless these are the weights that made the latents."""
    if (header.weights_id, header.weights_sha256) != (weights_id, weights_sha256):
        raise WeightsMismatchError(
            f"{name} was made with weights {_described(header.weights_id, header.weights_sha256)}, but "
            f"{_described(weights_id, weights_sha256)} are loaded: "
            "load the former, or encode the picture again"
        )


def _described(weights_id: str, sha256: str) -> str:
    return f"{weights_id} ({sha256[:8] or 'unsaved'})"


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of the header text, then of each tensor's bytes in the order of their names."""
    crc = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        crc = zlib.crc32(raw_bytes(tensors[name]), crc)
    return f"{crc:08x}"


def _checked_fields(file: TensorFile) -> dict[str, Any]:
    """The header's fields, each of its type and consistent with each other."""
    fields = file.header("latent")
    version = fields.get("version")
    if type(version) is not int or version < 1:
        file.refuse(f"is damaged: its latent format version is {version!r:.40}")
    if version > LATENT_VERSION:
        file.refuse(
            f"was written by a newer pmavae (latent format {version!r:.40}; "
            f"this one reads {LATENT_VERSION}): upgrade pmavae"
        )
    if set(fields) != _FIELDS:
        odd = sorted(set(fields) ^ _FIELDS)[0]
        file.refuse(
            f"is damaged: its header {'lacks' if odd in _FIELDS else 'has an unknown'} field {odd!r:.40}"
        )
    if problem := _problem(fields):
        file.refuse(f"is damaged: {problem}")
    return fields


def _problem(fields: Mapping[str, Any]) -> str | None:
    """Which of the header's fields has the wrong type or contradicts another, if one does."""
    width, height = fields["width"], fields["height"]
    valid = {
        "preset": is_label(fields["preset"]),
        "weights_id": is_label(fields["weights_id"]),
        "weights_sha256": fields["weights_sha256"] == "" or is_sha256(fields["weights_sha256"]),
        "width": type(width) is int and MIN_SIZE <= width <= MAX_SIZE,
        "height": type(height) is int and MIN_SIZE <= height <= MAX_SIZE,
        "picture": is_string_map(fields["picture"]),
    }
    for key, fine in valid.items():
        if not fine:
            return f"its {key} is not valid ({fields[key]!r:.40})"
    padding = [0, 0, padded(width) - width, padded(height) - height]
    if fields["padding"] != padding:
        return f"its padding {fields['padding']!r:.40} does not fit {width}×{height} px"
    return None


def _check_shapes(file: TensorFile, config: ModelConfig, height: int, width: int, styles: bool) -> None:
    names = set(file.shapes)
    if names == _STYLE and not styles:
        file.refuse(
            "holds a style and no picture: give it to pmavae style-mix as STYLE, and a picture or "
            "its latents here"
        )
    if names not in (_STYLE, _MEANS, _MEANS | _LOGVARS):
        odd = sorted(names ^ _MEANS if not names & _LOGVARS else names ^ (_MEANS | _LOGVARS))[0]
        file.refuse(f"is damaged: tensor {odd!r:.40} is {'not expected' if odd in names else 'missing'}")
    expected = expected_shapes(config, height, width)
    for name, shape in file.shapes.items():
        if shape != expected[name]:
            file.refuse(
                f"does not fit preset {config.preset}: {name} has the shape {shape}, "
                f"a picture of {width}×{height} px has {expected[name]}"
            )
