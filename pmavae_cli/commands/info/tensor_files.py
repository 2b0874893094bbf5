"""What a latent, style or weights file is, as `pmavae info` tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmavae.config import PRESETS
from pmavae.errors import LatentFileError, WeightsError
from pmavae.files.header import METADATA_KEY, parse_json
from pmavae.files.latent_file import read_latents_or_style
from pmavae.files.tensors import open_tensor_file
from pmavae.latents import Style
from pmavae.pretrained.manifest import WeightsEntry, WeightsIndex
from pmavae.pretrained.network import network_shapes
from pmavae.pretrained.weights import load_weights


def describe_tensor_file(place: Path | bytes, name: str, index: WeightsIndex) -> dict[str, Any]:
    """Read all of a file, or its bytes, and tell of it; raises PMAVAEError, naming it."""
    kind = _kind(place, name)
    if kind == "latent":
        return _describe_latents(place, name, index)
    if kind == "weights":
        if isinstance(place, bytes):
            raise WeightsError(f"{name} holds weights, which are read from files only: name their file")
        return _describe_weights(place, index)
    raise LatentFileError(
        f"{name} is a safetensors file but neither latents nor weights of pmavae: make one with pmavae encode"
    )


def _kind(place: Path | bytes, name: str) -> str | None:
    with open_tensor_file(place, name=name, error=LatentFileError) as file:
        if METADATA_KEY not in file.metadata:
            return None
        try:
            header = parse_json(file.metadata[METADATA_KEY])
        except ValueError:
            file.refuse("is damaged: its pmavae header is not valid JSON")
        return header.get("format") if isinstance(header, dict) else None


def _describe_latents(place: Path | bytes, name: str, index: WeightsIndex) -> dict[str, Any]:
    found, header = read_latents_or_style(place, PRESETS.__getitem__, name=name)
    released = _released(header.weights_sha256, index)
    facts: dict[str, Any] = {
        "kind": "style" if isinstance(found, Style) else "latents",
        "preset": header.preset,
        "weights": header.weights_id,
        "weights_sha256": header.weights_sha256,
        "weights_released": released is not None,
        "width": found.width,
        "height": found.height,
    }
    if isinstance(found, Style):
        return {**facts, "z_style": list(found.z_style.shape[1:])}
    bottom, right = found.padding
    return {
        **facts,
        "padding": [right, bottom],
        **{key: list(tensor.shape[1:]) for key, tensor in found.tensors().items()},
        "carried": sorted(header.picture),
    }


def _describe_weights(path: Path, index: WeightsIndex) -> dict[str, Any]:
    loaded = load_weights(path, shapes=network_shapes)
    config = loaded.config.to_dict()
    released = _released(loaded.sha256, index)
    return {
        "kind": "weights",
        "id": loaded.id,
        "task": config.pop("task", "base"),
        "preset": config.pop("preset"),
        "parameters": sum(tensor.numel() for tensor in loaded.state.values()),
        "sha256": loaded.sha256,
        "released": released is not None,
        "licence": released.licence if released else None,
        "config": config,
    }


def _released(sha256: str, index: WeightsIndex) -> WeightsEntry | None:
    """The released weights whose file has this hash."""
    return next((entry for entry in index.entries if entry.sha256 == sha256), None)
