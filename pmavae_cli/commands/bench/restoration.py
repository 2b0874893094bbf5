"""`pmavae bench --task`: how well networks restore pictures that were damaged on purpose."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmavae.errors import PMAVAEError
from pmavae.pretrained.manifest import WeightsIndex, released_weights
from pmavae.restoration.network import Restorer
from pmavae.training.evaluation import read_rgb
from pmavae.training.objectives.restoration import (
    CONDITIONS,
    Condition,
    Trial,
    conditions_of,
    fidelity,
    make_trial,
    restored,
)
from pmavae_cli.api import Context, Task
from pmavae_cli.commands.bench.restoration_baselines import PEERS, Method, Peer, baseline
from pmavae_cli.commands.bench.work import BenchSession, names_of
from pmavae_cli.console import Console
from pmavae_cli.options import RunOptions
from pmavae_cli.run.weights import find_weights
from pmavae_cli.task_command import task_command

HEADER = ["method", "picture", "condition", "PSNR dB", "SSIM", "shift", "time"]
WARM_UP_SIDE = 64  # px


def bench_restoration(
    session: BenchSession,
    paths: list[tuple[int, Path]],
    weights: Iterable[str],
    task: str,
    conditions: str | None,
    device: torch.device,
) -> None:
    """Measure weights on pictures, each damaged in every one of the conditions."""
    known = {name: condition for name, condition in CONDITIONS.items() if condition.task == task}
    asked = [known[name] for name in names_of(conditions, "--conditions", known)] if conditions else None
    # A name that is wrong is told before anything is loaded.
    possible = {name: peer for name, peer in PEERS.items() if peer.task == task}
    chosen = session.chosen_peers(
        {name: partial(_missing, name, peer, asked) for name, peer in possible.items()}
    )
    models = load_restorers(weights, task, device, session.index, session.console)
    used = _possible(models, asked)
    rows: list[Score] = []
    for row in scores(methods(models, chosen, session.tasks), used, paths, session.failed):
        rows.append(row)
        session.picture_row(row.row())
    if not rows:
        return
    averages = means(rows)
    seconds = {mean.condition: mean.seconds for mean in averages if mean.method == next(iter(models))}
    summary = [[*HEADER, "gain dB"], *([*_cells(mean, seconds), _gain(mean)] for mean in averages)]
    singles = [HEADER, *(_cells(row, seconds) for row in rows)]
    mean_rows = [mean.row() for mean in averages]
    session.finish(
        [summary] if session.console.quiet else [singles, summary],
        mean_rows,
        {"rows": [row.row() for row in rows], "means": mean_rows},
    )


def _missing(name: str, peer: Peer, conditions: Sequence[Condition] | None) -> str | None:
    if conditions is not None and not any(map(peer.takes, conditions)):
        return f"{name} is for noise alone, which none of --conditions has"
    return peer.missing()


def _possible(models: dict[str, Restorer], asked: list[Condition] | None) -> list[Condition]:
    """What to measure; raises PMAVAEError for a condition that the first network cannot be put to."""
    name, first = next(iter(models.items()))
    own = conditions_of(first.config)
    for condition in asked or ():
        if condition not in own:
            raise PMAVAEError(
                f"{name} cannot enlarge {condition.scale} times: leave {condition.name} out of --conditions"
            )
    return asked or own


def _cells(row: Score, seconds: dict[str, float]) -> list[str]:
    ours = seconds.get(row.condition)
    return [
        row.method,
        row.picture,
        row.condition,
        f"{row.psnr:.2f}",
        f"{row.ssim:.4f}",
        f"{row.shift:.2f}",
        f"{row.seconds / ours:.2f} x" if ours else "-",
    ]


def _gain(mean: Mean) -> str:
    return "-" if mean.gain is None else f"{mean.gain:+.2f} over {mean.baseline}"


@dataclass(frozen=True)
class Score:
    """What a method made of one picture that was damaged in one way."""

    method: str
    picture: str  # path
    condition: str
    psnr: float  # dB; infinite for equal pictures
    ssim: float
    shift: float  # 8-bit units
    seconds: float

    def row(self) -> dict[str, Any]:
        """For JSON, which has no infinity: null stands for it."""
        return asdict(self) | {"psnr": self.psnr if math.isfinite(self.psnr) else None}


@dataclass(frozen=True)
class Mean(Score):
    """A method's average over the pictures in one condition; `picture` is "mean"."""

    baseline: str | None  # the peer that it is held against
    gain: float | None  # dB of PSNR more than that peer has; None where either is infinite


def load_restorers(
    weights: Iterable[str],
    task: str,
    device: torch.device,
    index: WeightsIndex | None = None,
    console: Console | None = None,
) -> dict[str, Restorer]:
    """The networks by the names of their rows. Raises PMAVAEError for weights that cannot be had."""
    found: dict[str, Restorer] = {}
    for name in dict.fromkeys(weights):
        here = find_weights(name, task, index or released_weights(), console or Console())
        model = Restorer.from_pretrained(here, task=task)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        label = f"{model.weights_id} ({name})" if model.weights_id in found else model.weights_id
        found[label] = model
    return found


def methods(
    models: dict[str, Restorer], peers: Iterable[str], tasks: Mapping[str, Task]
) -> dict[str, Method]:
    """By name: every network, told the true level and as its task runs it; then every peer."""
    found: dict[str, Method] = {}
    for name, model in models.items():
        takes = partial(_has_scale, model)
        found[name] = Method(partial(restored, model), takes)
        if (task := tasks.get(model.config.task)) is not None:  # else PMAVAE_PLUGINS leaves it out
            found[f"{name} auto"] = Method(partial(_by_task, task, model), takes)
    return found | {name: Method(PEERS[name].open(), PEERS[name].takes) for name in peers}


def _has_scale(model: Restorer, condition: Condition) -> bool:
    return condition.task == model.config.task and condition.scale in model.config.scales


def _by_task(task: Task, model: Restorer, trial: Trial) -> NDArray[np.uint8]:
    """What `pmavae denoise` or `pmavae upscale` makes of the damaged picture without being told."""
    scale = ["--scale", str(trial.condition.scale)] if model.config.task == "upscale" else []
    with task_command(task).make_context(task.name, ["-", *scale]) as ctx:
        options = dict(ctx.params)
        RunOptions.take(ctx, options)
    del options["inputs"]

    def unused(*arguments: object) -> Any:
        raise AssertionError

    context = Context(
        open_model=unused,
        open_task_model=lambda: model,
        seed=0,
        generator=torch.Generator().manual_seed(0),
        load=unused,
        log=lambda message: None,
        detail=lambda message: None,
        progress=lambda done, total, note="": None,
        tables=trial.tables,
        open_features=unused,
        open_cache=unused,
        device=model.device,
    )
    result = task.transform(trial.shown, context, **options)
    return np.asarray(result, np.uint8)


def scores(
    methods: dict[str, Method],
    conditions: Sequence[Condition],
    paths: Iterable[tuple[int, Path]],
    failed: Callable[[Path, PMAVAEError], None],
) -> Iterator[Score]:
    """Each method on each picture in each condition that it takes; `failed` hears of a picture that cannot
    be read, or that a method cannot hold.

    The number beside a path makes the picture's noise. Every method is run once before, so that no figure
    has the time of loading kernels in it.
    """
    blank = np.random.default_rng(0).integers(0, 256, (WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)
    for method in methods.values():
        if condition := next(filter(method.takes, conditions), None):
            method.run(make_trial(blank, condition, 0))
    for number, path in paths:
        try:
            picture = read_rgb(path)
        except PMAVAEError as error:
            failed(path, error)
            continue
        for condition in conditions:
            trial = make_trial(picture, condition, number)
            for name, method in methods.items():
                if not method.takes(condition):
                    continue
                began = time.perf_counter()
                try:
                    result = method.run(trial)
                except PMAVAEError as error:
                    failed(path, error)
                    continue
                seconds = time.perf_counter() - began
                found = fidelity(trial, result)
                yield Score(name, str(path), condition.name, found.psnr, found.ssim, found.shift, seconds)


def means(rows: Sequence[Score]) -> list[Mean]:
    """One score a condition and method, over the pictures."""
    cells: dict[tuple[str, str], list[Score]] = {}
    for row in rows:
        cells.setdefault((row.condition, row.method), []).append(row)
    names = dict.fromkeys(row.condition for row in rows)
    return [
        _mean(own, cells, CONDITIONS[name])
        for name in names
        for (condition, _), own in cells.items()
        if condition == name
    ]


def _mean(own: list[Score], cells: dict[tuple[str, str], list[Score]], condition: Condition) -> Mean:
    name = next((peer for peer in baseline(condition) if (condition.name, peer) in cells), None)
    held_against = {row.picture: row.psnr for row in cells[condition.name, name]} if name else {}
    # A peer may have failed on a picture; over others the difference would be one of pictures.
    gains = [row.psnr - held_against[row.picture] for row in own if row.picture in held_against]
    return Mean(
        own[0].method,
        "mean",
        condition.name,
        statistics.fmean(row.psnr for row in own),
        statistics.fmean(row.ssim for row in own),
        statistics.fmean(row.shift for row in own),
        statistics.fmean(row.seconds for row in own),
        name,
        statistics.fmean(gains) if gains and all(map(math.isfinite, gains)) else None,
    )
