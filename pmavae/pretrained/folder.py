"""A model in a folder, by the names that Hugging Face libraries use: config.json and model.safetensors.

All that loading needs is in model.safetensors; config.json repeats what it says of itself, for people and for
the Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmavae.errors import WeightsError
from pmavae.files.header import weights_header
from pmavae.files.json_values import parse_json
from pmavae.files.tensors import write_atomically
from pmavae.pretrained.hub import LIBRARY, MODEL_FILE
from pmavae.pretrained.hub_push import CONFIG_FILE, config_text


def write_config(weights: Path) -> Path:
    """Write config.json beside a weights file; returns its path.

    Raises WeightsError where it cannot be written or where one of another program is there.
    """
    path = weights.with_name(CONFIG_FILE)
    header = weights_header(weights)
    if header is None:
        raise WeightsError(f"{weights} is no weights file of pmavae: give one that is")
    write_atomically(path, config_text(header).encode(), error=WeightsError)
    return path


def refuse_foreign_config(folder: Path) -> None:
    """Raise WeightsError where a folder holds a config.json that is not a model's, as a training's does."""
    path = folder / CONFIG_FILE
    if path.exists() and _read(path) is None:
        raise WeightsError(f"{path} is the configuration of something else: save the model to another folder")


def check_config(weights: Path, config: dict[str, Any], weights_id: str, architecture: int) -> None:
    """Raise WeightsError, with both sides, where config.json beside a weights file says something else.

    One that is not there, or not a model's of pmavae, says nothing.
    """
    path = weights.with_name(CONFIG_FILE)
    if weights.name != MODEL_FILE or (found := _read(path)) is None:
        return
    expected = {"architecture": architecture, "id": weights_id, "config": config}
    for name, value in expected.items():
        if found.get(name) == value:
            continue
        if name == "architecture":
            raise WeightsError(
                f"{path} is of architecture version {found.get(name)!r:.40}, {weights} and this pmavae have "
                f"{value}: take both from one place, or remove config.json"
            )
        raise WeightsError(
            f"{path} and {weights} are not of one model: {name} is {_brief(found.get(name), value)}; "
            "take both from one place, or remove config.json"
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and data.get("library_name") == LIBRARY else None


def _brief(found: Any, expected: Any) -> str:
    """The two sides of a difference; of two objects, those of the first field that differs."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                return f"that of {name}, {found.get(name)!r:.60} here and {expected.get(name)!r:.60} there"
    return f"{found!r:.60} here and {expected!r:.60} there"
