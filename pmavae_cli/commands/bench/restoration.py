"""`pmavae bench --task`: how well networks restore pictures that were damaged on purpose."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from pmavae.errors import PMAVAEError
from pmavae.pretrained.resolve import Found
from pmavae.restoration.network import Restorer
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
from pmavae_cli.commands.bench.baselines import Baseline, Pixels
from pmavae_cli.commands.bench.work import Bench, Method, Row, means, names_of, relative_time, table
from pmavae_cli.options import RunOptions
from pmavae_cli.task_command import task_command

COLUMNS = {
    "method": ("method", ""),
    "picture": ("picture", ""),
    "condition": ("condition", ""),
    "psnr": ("PSNR dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "shift": ("shift", ".2f"),  # 8-bit units
    "time": ("time", ""),
}


def bench_restoration(
    bench: Bench, weights: Iterable[str], task: str, conditions: str | None, device: torch.device
) -> None:
    """Measure weights on pictures, each damaged in every one of the conditions."""
    known = {name: condition for name, condition in CONDITIONS.items() if condition.task == task}
    asked = [known[name] for name in names_of(conditions, "--conditions", known)] if conditions else None

    # A name that is wrong is told before anything is loaded.
    baselines = bench.baselines(task, noisy=asked is None or any(c.levels.noise for c in asked))

    def restorer(file: Found) -> Restorer:
        model = Restorer.from_pretrained(file, task=task)
        return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    models = bench.load(weights, task, restorer)
    used = _possible(models, asked)
    rows = bench.measure(
        "method",
        _methods(models, baselines, bench.tasks),
        lambda picture, number: (make_trial(picture, condition, number) for condition in used),
        lambda trial, result: {"condition": trial.condition.name, **asdict(fidelity(trial, result))},
    )
    if not rows:
        return
    averages = [{**mean, **_gain(mean, rows)} for mean in means(rows, "condition", "method")]
    seconds = {
        mean["condition"]: mean["seconds"] for mean in averages if mean["method"] == next(iter(models))
    }

    def shown(row: Row) -> Row:
        gain = row.get("gain")
        told = None if gain is None else f"{gain:+.2f} over {row['baseline']}"
        return {**row, "time": relative_time(row, seconds.get(row["condition"])), "gain": told}

    summary = table(map(shown, averages), {**COLUMNS, "gain": ("gain dB", "")})
    singles = [] if bench.console.quiet else [table(map(shown, rows), COLUMNS)]
    bench.finish([*singles, summary], rows=rows, means=averages)


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


def _methods(
    models: dict[str, Restorer], baselines: dict[str, Baseline], tasks: Mapping[str, Task]
) -> dict[str, Method]:
    """By name: every network, told the true level and as its task runs it; then every baseline."""
    found: dict[str, Method] = {}
    for name, model in models.items():
        takes = partial(_has_scale, model)
        found[name] = Method(partial(restored, model), takes)
        if (task := tasks.get(model.config.task)) is not None:  # else PMAVAE_PLUGINS leaves it out
            found[f"{name} auto"] = Method(partial(_by_task, task, model), takes)
    first = next(iter(models.values()))
    return found | {
        name: Method(baseline.open(first), baseline.takes) for name, baseline in baselines.items()
    }


def _has_scale(model: Restorer, trial: Trial) -> bool:
    return trial.condition.scale in model.config.scales


def _by_task(task: Task, model: Restorer, trial: Trial) -> Pixels:
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


def _gain(mean: Row, rows: list[Row]) -> Row:
    """The baseline that a mean is held against, and the dB of PSNR that it has more; None where infinite."""
    own = [row for row in rows if row["condition"] == mean["condition"]]
    run = {row["method"] for row in own}
    # The first of these that was run; bm3d is, where there is noise.
    name = next((name for name in ("bicubic", "bm3d", "input") if name in run), None)
    held_against = {row["picture"]: row["psnr"] for row in own if row["method"] == name}
    # A baseline may have failed on a picture; over others the difference would be one of pictures.
    gains = [
        row["psnr"] - held_against[row["picture"]]
        for row in own
        if row["method"] == mean["method"] and row["picture"] in held_against
    ]
    finite = gains and all(map(math.isfinite, gains))
    return {"baseline": name, "gain": statistics.fmean(gains) if finite else None}
