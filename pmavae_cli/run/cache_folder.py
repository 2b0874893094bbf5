"""Where plugins keep what they need not compute twice."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pmavae.errors import PMAVAEError

VARIABLE = "PMAVAE_CACHE"


class CacheError(PMAVAEError):
    """A cache folder that cannot be used."""


def cache_folder(plugin: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The cache folder of a plugin, made where there is none; raises CacheError where that cannot be."""
    folder = _base(environment) / "plugins" / _file_name(plugin)
    reason = "no permission to write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        reason, writable = error.strerror or str(error), False
    if not writable:
        raise CacheError(
            f"the cache folder {folder} cannot be used ({reason}): set {VARIABLE} to a folder that can be "
            "written"
        )
    return folder


def _base(environment: Mapping[str, str]) -> Path:
    if chosen := environment.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    import platformdirs  # not for every start

    return platformdirs.user_cache_path("pmavae", appauthor=False)


def _file_name(plugin: str) -> str:
    """Of one folder, whatever an entry point is called."""
    return re.sub(r"[^a-z0-9]+", "-", plugin.lower()).strip("-") or "plugin"
