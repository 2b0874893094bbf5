"""`pmavae decode`: latents as a picture again; of a picture, its reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmavae_cli.api import Context, Task, hookimpl

if TYPE_CHECKING:
    from pmavae import Latents


class Decode(Task):
    name = "decode"
    help = "Turn latents back into a picture; a picture gives its reconstruction."
    large = True

    def transform(self, latents: Latents, context: Context) -> Latents:
        return latents


@hookimpl
def register_tasks() -> list[Task]:
    return [Decode()]
