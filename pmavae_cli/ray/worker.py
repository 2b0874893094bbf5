"""What Ray runs: workers that hold the model, and a ledger of what they have begun and done."""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pmavae_cli.ray.messages import Recorder, Refusal, Row, Work

if TYPE_CHECKING:
    from pmavae_cli.run.runner import Runner

MOST_ATTEMPTS = 3  # of one picture that each time ends its worker


class Ledger:
    """An actor beside the workers, which knows more than a worker that was killed and started again."""

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}
        self._rows: dict[int, bytes] = {}
        self._stopped = False

    def begin(self, index: int) -> tuple[int, bytes | None]:
        """The number of the attempt, 0 if there is to be none any more, and the row of one that ended."""
        if index in self._rows:
            return self._attempts[index], self._rows[index]
        if self._stopped:
            self._attempts.pop(index, None)
            return 0, None
        self._attempts[index] = self._attempts.get(index, 0) + 1
        return self._attempts[index], None

    def end(self, index: int, row: bytes) -> None:
        """A job has ended."""
        self._rows[index] = row

    def stop(self) -> None:
        """Nothing more is to be begun."""
        self._stopped = True

    def rows_at_rest(self) -> list[bytes] | None:
        """The rows of all that has ended; None while a job is at work."""
        if self._attempts.keys() - self._rows.keys():
            return None
        return list(self._rows.values())


class Worker:
    """Does one job at a time."""

    def __init__(self, work: Work, ledger: Any) -> None:
        self._work = work
        self._ledger = ledger
        self._console = Recorder(debug=work.options.debug)
        self._runner: Runner | None = None
        self._refusal: Refusal | None = None
        try:
            self._runner = self._open()
        except Exception as error:
            self._refusal = Refusal.of(error, work.options)

    def _open(self) -> Runner:
        from pmavae import __version__
        from pmavae.errors import PMAVAEError
        from pmavae.files import tensors
        from pmavae_cli.options import calm_threads
        from pmavae_cli.plugin_manager import load_plugins

        calm_threads()
        from pmavae_cli.run.runner import Runner

        work, here = self._work, socket.gethostname()
        if __version__ != work.version:
            raise PMAVAEError(
                f"machine {here} has pmavae {__version__}, not {work.version}: install the same"
            )
        try:
            os.chdir(work.folder)
        except OSError as reason:
            raise PMAVAEError(
                f"machine {here} has no folder {work.folder} ({reason.strerror}): with --ray all machines "
                "have to see the files under the same paths"
            ) from None
        registry = load_plugins()
        if work.task not in registry.tasks:
            raise PMAVAEError(f"machine {here} has no task {work.task}: install its plugin there too")
        tensors.part_prefix = work.mark
        # By --fail-fast the run is ended where the rows come together.
        options = replace(work.options, fail_fast=False, threads=work.options.threads or 1)
        return Runner(registry.tasks[work.task], work.values, options, self._console, registry)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """A batch of one job to its row."""
        import ray

        index = int(batch["index"][0])
        if self._refusal:
            return {"row": [pickle.dumps(self._refusal)]}
        attempt, row = ray.get(self._ledger.begin.remote(index))
        if row is None and attempt:
            row = pickle.dumps(self._do(index, attempt, batch["job"][0]))
            ray.get(self._ledger.end.remote(index, row))
        return {"row": [row or pickle.dumps(None)]}

    def _do(self, index: int, attempt: int, packed: bytes) -> Row:
        job, runner, work = pickle.loads(packed), self._runner, self._work
        assert runner is not None
        if attempt > MOST_ATTEMPTS:
            self._console.failed(
                job.name,
                work.task,
                f"{job.name} ended its worker {MOST_ATTEMPTS} times, for want of memory perhaps: try it by "
                "itself, without --ray",
            )
        else:
            # What a killed attempt has written is its own, and may be replaced.
            runner.options = replace(runner.options, overwrite=work.options.overwrite or attempt > 1)
            runner.run([job])
        return Row(index, self._console.take())
