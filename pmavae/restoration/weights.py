"""Loading a restoration network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pmavae.errors import WeightsError
from pmavae.restoration.config import RestorationConfig
from pmavae.weights import fill, load_weights, resolve_weights

if TYPE_CHECKING:
    from pmavae.restoration.network import Restorer


def load_restorer(name_or_path: str | Path, task: str) -> Restorer:
    """See `Restorer.from_pretrained`."""
    from pmavae.restoration.network import Restorer

    path, entry = resolve_weights(name_or_path, task)
    loaded = load_weights(path, entry)
    found = loaded.config.task if isinstance(loaded.config, RestorationConfig) else "base"
    if not isinstance(loaded.config, RestorationConfig) or found != task:
        raise WeightsError(
            f"{path} has weights of the task {found}, not {task}: use those that were made for it"
        )
    model = Restorer(loaded.config)
    fill(model, loaded, path)
    return model
