"""The scores of several ways to restore the same damaged pictures, in the same run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from pmavae.training.restoration_evaluation import (
    CONDITIONS,
    Condition,
    Trial,
    fidelity,
    make_trial,
    restored,
)
from pmavae_cli.api import Context, Task
from pmavae_cli.commands.bench.restoration_baselines import PEERS, Method, baseline
from pmavae_cli.console import Console
from pmavae_cli.options import RunOptions
from pmavae_cli.plugins.denoise import Denoise
from pmavae_cli.plugins.upscale import Upscale
from pmavae_cli.run.weights import usable
from pmavae_cli.task_command import task_command

WARM_UP_SIDE = 64  # px
COMMANDS: dict[str, type[Task]] = {"denoise": Denoise, "upscale": Upscale}


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
        here = usable(name, task, index or released_weights(), console or Console())
        model = Restorer.from_pretrained(here, task, index)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        label = f"{model.weights_id} ({name})" if model.weights_id in found else model.weights_id
        found[label] = model
    return found


def methods(models: dict[str, Restorer], peers: Iterable[str]) -> dict[str, Method]:
    """By name: every network, told the true level and as the command runs it; then every peer."""
    found: dict[str, Method] = {}
    for name, model in models.items():
        takes = partial(_has_scale, model)
        found[name] = Method(partial(restored, model), takes)
        found[f"{name} auto"] = Method(partial(_by_command, model), takes)
    return found | {name: Method(PEERS[name].open(), PEERS[name].takes) for name in peers}


def _has_scale(model: Restorer, condition: Condition) -> bool:
    return condition.task == model.config.task and condition.scale in model.config.scales


def _by_command(model: Restorer, trial: Trial) -> NDArray[np.uint8]:
    """What `pmavae denoise` or `pmavae upscale` makes of the damaged picture without being told."""
    task = COMMANDS[model.config.task]()
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
