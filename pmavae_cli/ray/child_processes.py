"""Ending all that a process has started, and what that has started, where the system is Linux."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every process below whose own parent ends."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill the children, then theirs, which `adopt_orphans` makes children in turn, until there are none."""
    if sys.platform != "linux":
        return
    with suppress(ChildProcessError):
        while True:
            children = _children()
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            # Without a list of the children, only those that have ended are taken leave of.
            if os.waitpid(-1, 0 if children else os.WNOHANG) == (0, 0):
                return


def _children() -> list[int]:
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in listing.read_text().split()]
    return found
