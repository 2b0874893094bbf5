"""`pmavae bench`: how faithful the codec is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from pmavae.errors import PMAVAEError
from pmavae.training.evaluation import latent_use
from pmavae.training.perceptual import PerceptualNetwork, perceptual_network
from pmavae_cli.commands.bench.reconstruction_baselines import PEERS
from pmavae_cli.commands.bench.reconstruction_scores import Score, codecs, load_models, means, scores
from pmavae_cli.commands.bench.work import BenchSession, Row
from pmavae_cli.console import Console

HEADER = ["codec", "picture", "PSNR dB", "SSIM", "perceptual", "bits/px", "time"]


def bench_reconstruction(
    session: BenchSession,
    paths: list[Path],
    weights: Iterable[str],
    perceptual: str,
    latents: bool,
    device: torch.device,
) -> None:
    """Measure weights on pictures, each through the bytes of a latent file."""
    chosen = session.chosen_peers({name: peer.missing for name, peer in PEERS.items()})
    network = _network(perceptual, device, session.console)
    models = load_models(weights, device, session.index, session.console)
    rows: list[Score] = []
    for row in scores(codecs(models, chosen), paths, network, device, session.failed):
        rows.append(row)
        session.picture_row(row.row())
    if not rows:
        return
    averages = means(rows)
    facts: list[Row] = []
    if latents:
        readable = [path for path in paths if path not in session.failures]
        for name, model in models.items():
            for latent, use in latent_use(model, readable).items():
                facts.append({"weights": name, "latent": latent, "kl_nats": round(use.nats, 3)})
                facts[-1] |= {"active": use.active, "channels": use.channels}
    listed = averages if session.console.quiet else [*rows, *averages]
    tables = [[HEADER, *(_cells(row, averages[0].seconds) for row in listed)]]
    if facts:
        titles = [key.replace("_", " ") for key in facts[0]]
        tables.append([titles, *([str(value) for value in fact.values()] for fact in facts)])
    mean_rows = [row.row() for row in averages]
    session.finish(
        tables,
        [*mean_rows, *facts],
        {"rows": [row.row() for row in rows], "means": mean_rows, "latents": facts},
    )


def _network(name: str, device: torch.device, console: Console) -> PerceptualNetwork | None:
    """What judges the perceptual distance; raises PMAVAEError where it was asked for and cannot be had."""
    try:
        network = perceptual_network("efficientnet-lite0" if name == "auto" else name)
    except PMAVAEError as error:
        if name != "auto":
            raise
        console.note(f"no perceptual distance: {error}")
        return None
    return network if network is None else network.to(device)


def _cells(row: Score, first: float) -> list[str]:
    distance = "-" if row.perceptual is None else f"{row.perceptual:.4f}"
    return [
        row.codec,
        row.picture,
        f"{row.psnr:.2f}",
        f"{row.ssim:.4f}",
        distance,
        f"{row.bits_per_pixel:.2f}",
        f"{row.seconds / first:.2f} x",
    ]
