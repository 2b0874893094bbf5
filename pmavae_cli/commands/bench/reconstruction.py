"""`pmavae bench`: how faithful the codec is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pmavae import PMAVAE
from pmavae.errors import PMAVAEError
from pmavae.images.metrics import feature_distance, psnr, ssim
from pmavae.pretrained.manifest import WeightsIndex, released_weights
from pmavae.training.evaluation import latent_use, read_rgb, reconstruct, unit
from pmavae.training.perceptual import PerceptualNetwork, perceptual_network
from pmavae_cli.commands.bench.reconstruction_baselines import PEERS, Codec
from pmavae_cli.commands.bench.work import BenchSession, Row
from pmavae_cli.console import Console
from pmavae_cli.run.weights import find_weights

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


@dataclass(frozen=True)
class Score:
    """What a codec made of one picture, or of all of them on average."""

    codec: str
    picture: str  # path; "mean" for the average
    psnr: float  # dB; infinite for equal pictures
    ssim: float
    perceptual: float | None  # feature distance; None without a network
    bits_per_pixel: float
    seconds: float

    def row(self) -> dict[str, object]:
        """For JSON, which has no infinity: null stands for it."""
        values = asdict(self)
        values["psnr"] = self.psnr if math.isfinite(self.psnr) else None
        return values


def load_models(
    weights: Iterable[str],
    device: torch.device,
    index: WeightsIndex | None = None,
    console: Console | None = None,
) -> dict[str, PMAVAE]:
    """The models by the names of their rows. Raises PMAVAEError for weights that cannot be had."""
    found: dict[str, PMAVAE] = {}
    for name in dict.fromkeys(weights):
        here = find_weights(name, "base", index or released_weights(), console or Console())
        model = PMAVAE.from_pretrained(here).to(device)
        # Files that differ may have one id: that of a run has its folder's name and its step.
        label = f"{model.weights_id} ({name})" if model.weights_id in found else model.weights_id
        found[label] = model
    return found


def codecs(models: dict[str, PMAVAE], peers: Iterable[str]) -> dict[str, Codec]:
    """Every model, then every peer, by name; the peers are compared with the first model."""
    found: dict[str, Codec] = {name: partial(_through_latents, model) for name, model in models.items()}
    first = next(iter(models.values()))
    return found | {name: PEERS[name].open(first) for name in peers}


def _through_latents(model: PMAVAE, picture: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], int]:
    return reconstruct(model, picture)


def scores(
    codecs: dict[str, Codec],
    paths: list[Path],
    network: PerceptualNetwork | None,
    device: torch.device,
    failed: Callable[[Path, PMAVAEError], None],
) -> Iterator[Score]:
    """Each codec on each picture, picture by picture; `failed` hears of a picture that cannot be read,
    or that a codec cannot hold.

    The first codec is run once before, so that no figure has the time of loading kernels in it.
    """
    for codec in codecs.values():
        codec(np.zeros((64, 64, 3), np.uint8), 1000)
    for path in paths:
        try:
            picture = read_rgb(path)
        except PMAVAEError as error:
            failed(path, error)
            continue
        original, size = unit(picture), 0
        for name, codec in codecs.items():
            began = time.perf_counter()
            try:
                decoded, written = codec(picture, size)
            except PMAVAEError as error:
                failed(path, error)
                continue
            seconds = time.perf_counter() - began
            size = size or written  # peers are to be as large as the first model's latents
            result = unit(decoded)
            yield Score(
                name,
                str(path),
                float(psnr(original, result)),
                float(ssim(original, result)),
                None if network is None else _perceptual(network, original, result, device),
                8 * written / (picture.shape[0] * picture.shape[1]),
                seconds,
            )


@torch.no_grad()
def _perceptual(network: PerceptualNetwork, a: torch.Tensor, b: torch.Tensor, device: torch.device) -> float:
    return float(feature_distance(*(network(x.to(device, torch.float32)) for x in (a, b))))


def means(rows: list[Score]) -> list[Score]:
    """One score a codec: the mean over the pictures."""
    result = []
    for codec in dict.fromkeys(row.codec for row in rows):
        own = [row for row in rows if row.codec == codec]
        distances = [row.perceptual for row in own if row.perceptual is not None]
        result.append(
            Score(
                codec,
                "mean",
                statistics.fmean(row.psnr for row in own),
                statistics.fmean(row.ssim for row in own),
                statistics.fmean(distances) if distances else None,
                statistics.fmean(row.bits_per_pixel for row in own),
                statistics.fmean(row.seconds for row in own),
            )
        )
    return result
