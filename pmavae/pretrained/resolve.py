"""From a name that was given for weights to a file that is here, fetched from the Hub where it is not."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmavae.errors import WeightsError
from pmavae.network_configs import VMAMBA, VMAMBA_TASK
from pmavae.pretrained.manifest import MODEL_FILE, HubReference, WeightsEntry, WeightsIndex, released_weights

_LOGGER = logging.getLogger(__name__)
_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}  # of files, rather than of repositories


@dataclass(frozen=True)
class Found:
    """A weights file that is here."""

    path: Path
    entry: WeightsEntry | None = None  # where the index knows it
    reference: HubReference | None = None  # where it is in the Hub's cache
    commit: str | None = None  # of the repository, there


def resolve(
    name: str | Path | Found,
    task: str = "base",
    index: WeightsIndex | None = None,
    *,
    revision: str | None = None,
    offline: bool = False,
    force: bool = False,
    progress: Callable[[str], Any] | None = None,
    warn: Callable[[str], object] = _LOGGER.warning,
) -> Found:
    """The file that a name stands for; what was found already is given back.

    A name is an id of the index, a preset, which stands for its weights for `task`, a weights file, a
    folder that holds model.safetensors, or `org/name[@revision][:file]` on the Hub; `./tiny` is a path where
    `tiny` is the preset. Without an index, the weights that come with pmavae have names. What is not here is
    fetched into the Hub's cache, unless `offline`, and once more with `force`. `revision`, a branch, a tag or
    a commit, is for a name on the Hub. `progress` gives, for the name, the class of a progress bar; `warn`
    takes the reason where the Hub could not be asked for a newer file. Raises WeightsError, listing the known
    names.
    """
    if isinstance(name, Found):
        return name
    index, path = index or released_weights(), Path(name)
    text = name if isinstance(name, str) else ""
    entry = index.find(text, task)
    reference = HubReference.parse(text) if entry is None and not path.exists() else None
    if reference is not None:
        bare = HubReference(reference.repo, revision)
        if revision is not None:
            if reference.revision not in (None, revision):
                raise WeightsError(
                    f"{reference} names another revision than {revision}: leave out one of the two"
                )
            if HubReference.parse(str(bare)) != bare:
                raise WeightsError(
                    f"{revision!r:.80} is no revision of {bare.repo}: name a branch, a tag or a commit"
                )
            reference = replace(reference, revision=revision)
        elif reference == bare and (Path(bare.repo).parent.is_dir() or Path(bare.repo).suffix in _SUFFIXES):
            # It looks like a slip in a path, and no server is to be asked.
            raise WeightsError(
                f"there is no file or folder {reference}: check its name, or write {reference}@main for a "
                "repository on the Hub"
            )
    elif revision is not None:
        raise WeightsError(f"{name} is no org/name on the Hub, so it has no revision: leave {revision} out")
    elif entry is not None:
        try:
            return Found(index.path(entry), entry)
        except WeightsError:
            if (reference := entry.reference) is None:
                raise
    if reference is not None:
        from pmavae.pretrained.hub import fetch

        fetched = fetch(
            reference,
            sha256=entry.sha256 if entry else None,
            offline=offline,
            force=force,
            tqdm_class=progress(text) if progress else None,
        )
        if fetched.note:
            warn(fetched.note)
        return Found(fetched.path, entry, fetched.reference, fetched.commit)
    if path.is_file():
        return Found(path)
    if (path / MODEL_FILE).is_file():
        return Found(path / MODEL_FILE)
    if task == VMAMBA_TASK and text in VMAMBA:
        raise WeightsError(
            f"weights of {name} do not come with pmavae: make a file of a released checkpoint "
            "with pmavae weights import vmamba.pth -o vmamba.safetensors, and give that"
        )
    raise WeightsError(
        f"there are no weights {name}: it is no file, no folder with {MODEL_FILE}, not one of the "
        f"released weights ({', '.join(index.names()) or 'none'}), and no org/name on the Hub"
    )
