"""`pmavae encode`: a picture as its latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmavae_cli.api import Context, Task, hookimpl

if TYPE_CHECKING:
    from pmavae import Latents


class Encode(Task):
    name = "encode"
    help = "Write the latents of a picture to a latent file."
    writes = "latents"

    def transform(self, latents: Latents, context: Context) -> Latents:
        return latents


@hookimpl
def register_tasks() -> list[Task]:
    return [Encode()]
