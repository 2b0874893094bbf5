"""`pmavae bench`: how faithful the codec is."""

from collections.abc import Iterable
from functools import partial

import torch

from pmavae import PMAVAE
from pmavae.errors import PMAVAEError
from pmavae.images.metrics import feature_distance, psnr, ssim
from pmavae.images.pixels import to_unit
from pmavae.training.evaluation import latent_use, reconstruct
from pmavae.training.perceptual import PerceptualNetwork, perceptual_network
from pmavae_cli.commands.bench.baselines import Coding, Pixels
from pmavae_cli.commands.bench.work import Bench, Method, Row, means, relative_time, table
from pmavae_cli.console import Console

COLUMNS = {
    "codec": ("codec", ""),
    "picture": ("picture", ""),
    "psnr": ("PSNR dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "perceptual": ("perceptual", ".4f"),
    "bits_per_pixel": ("bits/px", ".2f"),
    "time": ("time", ""),
}


def bench_reconstruction(
    bench: Bench, weights: Iterable[str], perceptual: str, latents: bool, device: torch.device
) -> None:
    """Measure weights on pictures, each through the bytes of a latent file."""
    baselines = bench.baselines("base")
    network = _network(perceptual, device, bench.console)
    models = bench.load(weights, "base", lambda file: PMAVAE.from_pretrained(file).to(device))
    first = next(iter(models.values()))
    methods = {name: Method(partial(_through_latents, model)) for name, model in models.items()}
    methods |= {name: Method(baseline.open(first), baseline.takes) for name, baseline in baselines.items()}
    rows = bench.measure(
        "codec", methods, lambda picture, _: [Coding(picture)], partial(_score, network, device)
    )
    if not rows:
        return
    averages = means(rows, "codec")
    facts: list[Row] = []
    if latents:
        readable = [path for _, path in bench.pictures if path not in bench.failures]
        for name, model in models.items():
            for latent, use in latent_use(model, readable).items():
                facts.append({"weights": name, "latent": latent, "kl_nats": round(use.nats, 3)})
                facts[-1] |= {"active": use.active, "channels": use.channels}
    shown = averages if bench.console.quiet else [*rows, *averages]
    tables = [table([{**row, "time": relative_time(row, averages[0]["seconds"])} for row in shown], COLUMNS)]
    if facts:
        tables.append(table(facts, {key: (key.replace("_", " "), "") for key in facts[0]}))
    bench.finish(tables, rows=rows, means=averages, latents=facts)


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


def _through_latents(model: PMAVAE, coding: Coding) -> tuple[Pixels, int]:
    return reconstruct(model, coding.picture)


@torch.no_grad()
def _score(
    network: PerceptualNetwork | None, device: torch.device, coding: Coding, result: tuple[Pixels, int]
) -> Row:
    decoded, written = result
    coding.size = coding.size or written
    pair = to_unit(coding.picture, dtype=torch.float64), to_unit(decoded, dtype=torch.float64)
    distance = None
    if network is not None:
        distance = float(feature_distance(*(network(x.to(device, torch.float32)) for x in pair)))
    return {
        "psnr": float(psnr(*pair)),  # dB; infinite for equal pictures
        "ssim": float(ssim(*pair)),
        "perceptual": distance,
        "bits_per_pixel": 8 * written / (decoded.shape[0] * decoded.shape[1]),
    }
