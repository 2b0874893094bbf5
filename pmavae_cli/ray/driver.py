"""The process of a run that talks to Ray, apart so that nothing of Ray's reaches the terminal.

It reads a Batch from stdin and writes Messages to stdout, both pickled. A line on stdin asks it to begin
nothing more; the end of stdin, to end at once.
"""

import ctypes
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from pmavae.errors import PMAVAEError
from pmavae_cli.options import RunOptions
from pmavae_cli.ray.messages import Batch, Message, Refusal, Row, Started, no_cluster
from pmavae_cli.ray.worker import Ledger, Worker
from pmavae_cli.run.jobs import Refused

REACH = 10  # seconds to reach an address

PR_SET_CHILD_SUBREAPER = 36
_LEAVING = threading.Lock()


def main() -> None:
    """Do the batch of stdin."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    batch: Batch = pickle.load(sys.stdin.buffer)
    adopt_orphans()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if not batch.work.options.debug:
        os.dup2(nowhere, 2)
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    to_stop: list[Any] = []
    threading.Thread(target=_listen, args=(batch, to_stop), daemon=True).start()
    try:
        for message in _messages(batch, to_stop):
            _send(messages, message)
        _send(messages, None)
    except BaseException as error:
        _send(messages, _refusal(batch, error))
    _leave(batch)


def _refusal(batch: Batch, error: BaseException) -> Refusal:
    kind, first = type(error).__name__, (str(error).splitlines() or [""])[0]
    ended = f"Ray ended the run: {kind}: {first}; run again with --debug for what it says"
    return Refusal.of(error, batch.work.options, ended)


def _send(messages: BinaryIO, message: Message) -> None:
    pickle.dump(message, messages)
    messages.flush()


def _leave(batch: Batch) -> None:
    _LEAVING.acquire()  # for good: the run may end and be ended at the same time
    ray = sys.modules.get("ray")
    if ray and getattr(ray, "is_initialized", bool)():
        ray.shutdown()
    end_children()  # workers see for themselves that their cluster is gone, but seconds later
    shutil.rmtree(batch.temporary, ignore_errors=True)
    os._exit(0)


def _messages(batch: Batch, to_stop: list[Any]) -> Iterator[Message]:
    _reach(batch.address)
    _connect(batch)
    # Ray Data needs a process that is part of the cluster.
    if batch.address.startswith("ray://"):
        yield from _from_afar(batch, to_stop)
    else:
        yield from done(batch, to_stop.append)


def done(batch: Batch, report: Callable[[Any], None]) -> Iterator[Message]:
    """Do a batch, in a process of the cluster. `report` is given the ledger before anything is begun."""
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    workers = _room(ray.nodes(), batch.work.options)
    yield Started()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    ledger = (
        ray.remote(Ledger)
        .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
        .remote()
    )
    report(ledger)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # A block is what Ray gives to a worker and does again when that is killed, and its rows come all at once.
    jobs = [{"index": i, "job": pickle.dumps(job)} for i, job in enumerate(batch.jobs)]
    rows = ray.data.from_items(jobs, override_num_blocks=len(jobs)).map_batches(
        Worker,
        batch_size=1,
        fn_constructor_args=[batch.work, ledger],
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            initial_size=min(workers, len(jobs)),
            max_size=min(workers, len(jobs)),
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=batch.work.options.threads or 1,
        num_gpus=1 if _on_gpus(ray.nodes(), batch.work.options) else 0,
    )
    for row in rows.iter_rows():
        message: Row | Refusal | None = pickle.loads(row["row"])
        if message is None:  # it was not begun, as the run is to end
            yield from _last(ledger)
            return
        yield message


def _last(ledger: Any) -> Iterator[Message]:
    """The rows of all that had been begun when the run was to end; some may have been sent."""
    import ray

    while (rows := ray.get(ledger.rows_at_rest.remote())) is None:
        time.sleep(0.05)
    yield from map(pickle.loads, rows)


def _listen(batch: Batch, to_stop: list[Any]) -> None:
    """Obey stdin."""
    for _ in sys.stdin.buffer:
        for actor in to_stop:
            actor.stop.remote()
    _leave(batch)


def _from_afar(batch: Batch, to_stop: list[Any]) -> Iterator[Message]:
    import ray

    outpost: Any = ray.remote(Outpost).options(num_cpus=0, max_concurrency=2).remote(batch)
    to_stop.append(outpost)
    while True:
        for message in ray.get(outpost.take.remote()):
            if message is None:
                return
            yield message


class Outpost:
    """An actor that does a batch, for a process that is no part of the cluster."""

    def __init__(self, batch: Batch) -> None:
        self._messages: Queue[Message] = Queue()
        self._ledger: Any = None
        threading.Thread(target=self._do, args=(batch,), daemon=True).start()

    def _do(self, batch: Batch) -> None:
        try:
            for message in done(batch, self._keep):
                self._messages.put(message)
            self._messages.put(None)
        except BaseException as error:
            self._messages.put(_refusal(batch, error))

    def _keep(self, ledger: Any) -> None:
        self._ledger = ledger

    def take(self) -> list[Message]:
        """What there is to tell, after a while without anything."""
        with suppress(Empty):
            return [self._messages.get(timeout=1)]
        return []

    def stop(self) -> None:
        """Begin nothing more."""
        if self._ledger:
            self._ledger.stop.remote()


def _reach(address: str) -> None:
    """Raise PMAVAEError where nothing answers; Ray itself would try for minutes."""
    if address in ("local", "auto"):
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 10001), REACH).close()
    except OSError as reason:
        raise no_cluster(address, str(reason.strerror or reason)) from None


def _connect(batch: Batch) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if batch.address == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ray.init(
            "local",
            num_cpus=max(cores, batch.work.options.threads or 1),
            include_dashboard=False,
            _temp_dir=str(batch.temporary),
            **quiet,
        )
        return
    try:
        ray.init(batch.address, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        if "InvalidAuthToken" in "".join(traceback.format_exception(error)):
            raise PMAVAEError(
                f"the Ray cluster at {batch.address} asks for a token: set RAY_AUTH_MODE=token, and provide "
                "it as Ray's documentation of token authentication tells"
            ) from error
        first = (str(error).splitlines() or [""])[0].split(". ")[0]
        raise no_cluster(batch.address, first) from error


def _on_gpus(nodes: list[dict[str, Any]], options: RunOptions) -> bool:
    present = any(node["Alive"] and node["Resources"].get("GPU") for node in nodes)
    return options.device == "cuda" or (options.device == "auto" and present)


def _room(nodes: list[dict[str, Any]], options: RunOptions) -> int:
    """How many workers the cluster can hold; raises Refused."""
    threads, count = options.threads or 1, 0
    for resources in (node["Resources"] for node in nodes if node["Alive"]):
        fits = int(resources.get("CPU", 0)) // threads
        count += min(fits, int(resources.get("GPU", 0))) if _on_gpus(nodes, options) else fits
    if not count:
        gpu = " and a GPU" if _on_gpus(nodes, options) else ""
        raise Refused(
            f"no machine of the Ray cluster has {threads} CPUs{gpu} for a worker: give fewer --threads"
            + (", or --device cpu" if gpu else "")
        )
    return count


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


if __name__ == "__main__":
    main()
