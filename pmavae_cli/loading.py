"""How the modules of a task are imported: torch and what a run needs beside it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swift_imports() -> Iterator[None]:
    """Import torch in here without looking for garbage, and never look for any in what is imported.

    Importing makes hundreds of thousands of objects that stay. Python's collector goes through all of them
    again and again, for a tenth of the start's time; frozen, they cost later collections nothing either.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
