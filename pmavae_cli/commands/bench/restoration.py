"""`pmavae bench --task`: how well networks restore pictures that were damaged on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

from pmavae.errors import PMAVAEError
from pmavae.restoration.network import Restorer
from pmavae.training.restoration_evaluation import CONDITIONS, Condition, conditions_of
from pmavae_cli.commands.bench.restoration_baselines import PEERS, Peer
from pmavae_cli.commands.bench.restoration_scores import Mean, Score, load_restorers, means, methods, scores
from pmavae_cli.commands.bench.work import BenchSession, names_of

HEADER = ["method", "picture", "condition", "PSNR dB", "SSIM", "shift", "time"]


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
    for row in scores(methods(models, chosen), used, paths, session.failed):
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
