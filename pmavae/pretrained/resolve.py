"""From a reference that was given for weights to the path of a file, fetched where it is not here."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from pmavae.errors import WeightsError
from pmavae.pretrained.hub import fetch
from pmavae.pretrained.manifest import HubReference

_LOGGER = logging.getLogger(__name__)
_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}  # of files, rather than of repositories


def path_of_reference(reference: HubReference, *, offline: bool = False, revision: str | None = None) -> Path:
    """The file that a reference stands for, at another revision where one is given. Raises WeightsError."""
    if revision is not None:
        reference = _at(reference, revision)
    refuse_slip(reference)
    return fetched_path(reference, offline=offline)


def refuse_slip(reference: HubReference) -> None:
    """Raise WeightsError for a bare `org/name` that looks like a slip in a path: no server is to be asked."""
    folder, suffix = Path(reference.repo).parent, Path(reference.repo).suffix
    if reference == HubReference(reference.repo) and (folder.is_dir() or suffix in _SUFFIXES):
        raise WeightsError(
            f"there is no file or folder {reference}: check its name, or write {reference}@main for a "
            "repository on the Hub"
        )


def fetched_path(reference: HubReference, *, sha256: str | None = None, offline: bool = False) -> Path:
    """The file in the cache; a warning is logged where the Hub could not be asked. Raises WeightsError."""
    fetched = fetch(reference, sha256=sha256, offline=offline)
    if fetched.note:
        _LOGGER.warning(fetched.note)
    return fetched.path


def _at(reference: HubReference, revision: str) -> HubReference:
    if reference.revision not in (None, revision):
        raise WeightsError(f"{reference} names another revision than {revision}: leave out one of the two")
    named = HubReference(reference.repo, revision)
    if HubReference.parse(str(named)) != named:
        raise WeightsError(
            f"{revision!r:.80} is no revision of {reference.repo}: name a branch, a tag or a commit"
        )
    return replace(reference, revision=revision)
