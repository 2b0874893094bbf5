"""PMA-VAE: a small attention-free image autoencoder.

    from pmavae import PMAVAE
    vae = PMAVAE.from_pretrained("tiny")
    latents = vae.encode(picture)
    picture = vae.decode(latents)

The names are loaded on first use, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmavae.autoencoder import PMAVAE
    from pmavae.config import PRESETS
    from pmavae.latents import Latents, Style

__all__ = ["PMAVAE", "PRESETS", "Latents", "Style"]
__version__ = "0.1.0"

_HOMES = {
    "PMAVAE": "pmavae.autoencoder",
    "PRESETS": "pmavae.config",
    "Latents": "pmavae.latents",
    "Style": "pmavae.latents",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pmavae' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
