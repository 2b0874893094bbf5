"""Weights on the Hugging Face Hub: fetched into its cache, checked, and found there again.

The Hub's client is imported by the functions that need it. Only safetensors files are asked for.
HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to any program that uses the Hub.
"""

import errno
import hashlib
import logging
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pmavae.errors import WeightsError
from pmavae.files.header import is_sha256, weights_header
from pmavae.pretrained.hub_errors import Attempt, explain
from pmavae.pretrained.manifest import (
    CARD_FILE,
    CONFIG_FILE,
    LIBRARY,
    MODEL_FILE,
    HubReference,
    config_text,
)

MAX_FILE_BYTES = 2**31 + 2**21  # the tensors and the header that `load_weights` takes at most


@contextmanager
def quiet(name: str, level: int = logging.CRITICAL) -> Iterator[None]:
    """No warnings of any library, and of the logger with this name nothing below a level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def is_offline() -> bool:
    """Whether the user has forbidden the network, by HF_HUB_OFFLINE."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return True
    # The client reads its variables when it is imported, and then keeps to them.
    return bool(getattr(sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE", False))


def cache_folder() -> Path:
    """The folder of the cache, by HF_HUB_CACHE or HF_HOME."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().resolve()


def attempt_at(done: str, reference: HubReference) -> Attempt:
    """What is about to be tried, with the server, the cache and the token of now."""
    from huggingface_hub import constants, get_token

    token = None
    with suppress(Exception):  # the client meets the same trouble again where it needs the token
        token = get_token()
    file, revision = reference.file or MODEL_FILE, reference.revision or "main"
    cache = str(cache_folder())
    return Attempt(done, reference.repo, revision, file, constants.ENDPOINT, cache, token)


@contextmanager
def quiet_client(*, bars: bool) -> Iterator[None]:
    """No word of the client itself, whose troubles become errors here; no bars but those asked for."""
    with _WORDS.off(), nullcontext() if bars else _BARS.off():
        yield


class _Switch:
    """Something of the whole process, off while any thread wants it off, and then as it was before."""

    def __init__(self, held: Callable[[], AbstractContextManager[None]]) -> None:
        self._held = held
        self._lock = threading.Lock()
        self._threads = 0
        self._stack = ExitStack()

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if self._threads == 0:
                self._stack.enter_context(self._held())
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._stack.close()


@contextmanager
def _without_bars() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


_WORDS, _BARS = _Switch(lambda: quiet("huggingface_hub")), _Switch(_without_bars)


class HubError(WeightsError):
    """Weights that the Hub or its cache does not give or take: one sentence with the remedy."""


@dataclass(frozen=True)
class Fetched:
    """A weights file in the cache of the Hub."""

    path: Path
    reference: HubReference
    commit: str  # 40 hexadecimal digits
    note: str = ""  # why the Hub was not asked whether it has a newer one, where that was tried


def fetch(
    reference: HubReference,
    *,
    sha256: str | None = None,
    offline: bool = False,
    force: bool = False,
    tqdm_class: Any = None,
) -> Fetched:
    """Make sure that a weights file of the Hub is in the cache, and give its path there.

    A pinned commit that is in the cache is taken from there; anything else is asked for, and taken from
    the cache where the Hub cannot be reached (see `Fetched.note`). `offline` and HF_HUB_OFFLINE open no
    socket. The file is compared with `sha256`, or else with the SHA-256 that the Hub keeps for it, and
    removed where it differs. `force` fetches it again. `tqdm_class` shows the progress; without it
    nothing is shown. Raises HubError.
    """
    _check_name(reference)
    offline = offline or is_offline()
    if offline and force:
        raise HubError(f"{reference} cannot be fetched again without the network: leave out one of the two")
    if not force and (offline or reference.is_pinned) and (path := _cached_path(reference)):
        return _checked(path, reference, sha256)
    if offline:
        raise HubError(
            f"{reference} is not in the cache {cache_folder()} and the network is forbidden "
            f"(--offline or HF_HUB_OFFLINE): fetch it once with pmavae weights fetch {reference}"
        )
    attempt = attempt_at("fetched", reference)
    with quiet_client(bars=tqdm_class is not None):
        try:
            path, etag = _download(reference, force, tqdm_class)
        except HubError:
            raise
        except Exception as error:
            reason, passes = explain(error, attempt)
            if not passes or force or (cached_path := _cached_path(reference)) is None:
                raise HubError(f"{reference} was not fetched: {reason}") from None
            note = f"{reference} is taken from the cache as it was last seen: {reason.split('; ')[0]}"
            return replace(_checked(cached_path, reference, sha256), note=note)
    return _checked(path, reference, sha256 or _large_file(etag))


def cached() -> list[Fetched]:
    """The weights files of pmavae in the cache of the Hub, without the network."""
    found = []
    for path in sorted(cache_folder().glob("models--*--*/snapshots/*/**/*.safetensors")):
        repo_folder, _, commit, *inside = path.relative_to(cache_folder()).parts
        repo = repo_folder.removeprefix("models--").replace("--", "/", 1)
        file = "/".join(inside)
        reference = HubReference(repo, commit, None if file == MODEL_FILE else file)
        if reference.is_pinned and weights_header(path) is not None:
            found.append(Fetched(path, reference, commit))
    return found


def _check_name(reference: HubReference) -> None:
    file = reference.file or MODEL_FILE
    path = PurePosixPath(file)
    if path.suffix != ".safetensors":
        raise HubError(f"{reference} is no safetensors file, and nothing else is read: name one that is")
    if path.is_absolute() or ".." in path.parts or "\\" in file or not file.isprintable():
        raise HubError(f"{reference} names no file in a repository: write it as folder/name.safetensors")


def _download(reference: HubReference, force: bool, tqdm_class: Any) -> tuple[Path, str | None]:
    """The path in the cache and the ETag, after a look at what the Hub has; raises what the client raises."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import FileMetadataError

    file = reference.file or MODEL_FILE
    # The client repeats a failing look-up for half a minute; one that fails at once can be reported at once.
    metadata = get_hf_file_metadata(
        hf_hub_url(reference.repo, file, revision=reference.revision),
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        library_name=LIBRARY,
    )
    if metadata.commit_hash is None:
        raise FileMetadataError("there is no commit in the answer")
    known = _cached_path(reference)
    if not force and known is not None and _commit(known) == metadata.commit_hash:
        return known, metadata.etag
    if metadata.size is not None:
        if metadata.size > MAX_FILE_BYTES:
            raise HubError(
                f"{reference} has {metadata.size} bytes, more than weights can have: name another file of "
                f"{reference.repo}"
            )
        folder = next((f for f in (cache_folder(), *cache_folder().parents) if f.is_dir()), None)
        if folder is not None and shutil.disk_usage(folder).free < metadata.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    bar = {"tqdm_class": tqdm_class} if tqdm_class is not None else {}
    path = hf_hub_download(
        reference.repo,
        file,
        revision=reference.revision,
        library_name=LIBRARY,
        force_download=force,
        **bar,
    )
    return Path(path), metadata.etag


def _checked(path: Path, reference: HubReference, sha256: str | None) -> Fetched:
    """The file, if it is what it should be."""
    # Behind the link in the cache, a large file has its hash as its name.
    expected = sha256 or _large_file(path.resolve().name)
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as reason:
        raise HubError(f"{path} cannot be read: {reason.strerror or reason}") from None
    if expected is not None and digest != expected:
        for file in (path.resolve(), path):
            file.unlink(missing_ok=True)
        raise HubError(
            f"{reference} came damaged or is another file: its SHA-256 is {digest}, not {expected}; "
            "it was removed, fetch it again"
        )
    if weights_header(path) is None:
        raise HubError(
            f"{reference} is no weights file of pmavae: name one as {reference.repo}:FILE.safetensors"
        )
    return Fetched(path, reference, _commit(path))


def _large_file(etag: str | None) -> str | None:
    """The SHA-256 that the Hub has as the ETag of a large file; that of a small one is something else."""
    return etag if etag is not None and is_sha256(etag) else None


def _commit(path: Path) -> str:
    """The commit that a path in the cache belongs to."""
    return next(folder.name for folder in path.parents if folder.parent.name == "snapshots")


def _cached_path(reference: HubReference) -> Path | None:
    """Where a reference is in the cache, as far as the cache knows its revision."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        reference.repo, reference.file or MODEL_FILE, cache_dir=cache_folder(), revision=reference.revision
    )
    return Path(found) if isinstance(found, str) else None


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload a model of pmavae",
    revision: str | None = None,
) -> str:
    """Upload model.safetensors of a folder, its README.md where there is one, and a config.json for them.

    The repository is made where there is none, and the branch `revision` likewise. Nothing else in the folder
    is uploaded. Returns the URL of the commit. Raises HubError.
    """
    target = HubReference.parse(repo)
    if target is None or target.revision or target.file:
        raise HubError(f"{repo} is no repository of the Hub: write it as org/name")
    model = Path(folder) / MODEL_FILE
    header = weights_header(model)
    if header is None:
        raise HubError(f"{model} is no weights file of pmavae: push a folder that holds one")
    if is_offline():
        raise HubError(f"{repo} cannot be pushed to without the network: unset HF_HUB_OFFLINE")
    attempt = attempt_at("pushed", HubReference(repo, revision))
    if attempt.token is None:
        raise HubError(f"{model} was not pushed: there is no token; set HF_TOKEN or run hf auth login")
    from huggingface_hub import CommitOperationAdd, HfApi

    files: dict[str, str | bytes] = {MODEL_FILE: str(model), CONFIG_FILE: config_text(header).encode()}
    if (card := Path(folder) / CARD_FILE).is_file():
        files[CARD_FILE] = str(card)
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=what) for name, what in files.items()]
    with quiet_client(bars=False):
        try:
            api = HfApi(library_name=LIBRARY)
            api.create_repo(repo, private=private or None, exist_ok=True)
            if revision:
                api.create_branch(repo, branch=revision, exist_ok=True)
            commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
        except Exception as error:
            raise HubError(f"{model} to {repo} was not pushed: {explain(error, attempt)[0]}") from None
    return str(commit.commit_url)
