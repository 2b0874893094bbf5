"""The Hub's client, as this library uses it: silent, and imported by the functions that need it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from pmavae.pretrained.hub_errors import Attempt
from pmavae.pretrained.quiet import quiet


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


def attempt_at(subject: str, done: str, repo: str, revision: str, file: str) -> Attempt:
    """What is about to be tried, with the server, the cache and the token of now."""
    from huggingface_hub import constants, get_token

    token = None
    with suppress(Exception):  # the client meets the same trouble again where it needs the token
        token = get_token()
    return Attempt(subject, done, repo, revision, file, constants.ENDPOINT, str(cache_folder()), token)


@contextmanager
def quiet_client(*, bars: bool) -> Iterator[None]:
    """No word of the client itself, whose troubles become errors here; no bars but those asked for."""
    with ExitStack() as stack:
        stack.enter_context(_WORDS.off())
        if not bars:
            stack.enter_context(_BARS.off())
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
