"""Saying what fails, and going on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pmavae.errors import PMAVAEError
from pmavae.images.reading import UNREADABLE
from pmavae_cli.console import Console


class Ended(Exception):
    """With --fail-fast, what is begun is not finished; why has been said."""


@dataclass
class Failures:
    """Those of one run."""

    console: Console
    task: str
    fail_fast: bool
    any: bool = False  # some input or style so far, which has then been said

    @property
    def ended(self) -> bool:
        """Whether something failed after which nothing more is to be done."""
        return self.any and self.fail_fast

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """Say what fails in here, of the file `name`, and go on."""
        try:
            yield
        except (BrokenPipeError, Ended):
            # Where nobody reads the results any more, that ends the run, whatever the file.
            raise
        except MemoryError as error:
            self._tell(name, _out_of_memory(error))
        except (PMAVAEError, *UNREADABLE) as error:
            self._tell(name, error)
        except Exception as error:  # a plugin may raise anything: the other inputs are still done
            # torch has no type of its own for memory that a CPU does not have.
            if isinstance(error, RuntimeError) and "memory" in str(error):
                failure = _out_of_memory(error)
            else:
                failure = PMAVAEError(
                    f"unexpected error: {type(error).__name__}: {error}; "
                    "run again with --debug for the traceback"
                )
                failure.__cause__ = error
            self._tell(name, failure)

    def _tell(self, name: str, error: Exception) -> None:
        self.any = True
        self.console.failure(name, self.task, error)


def _out_of_memory(error: Exception) -> PMAVAEError:
    failure = PMAVAEError("it needs more memory than there is: make the picture smaller")
    failure.__cause__ = error
    return failure
