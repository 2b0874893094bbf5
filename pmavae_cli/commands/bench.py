"""`pmavae bench`: how faithful weights are, beside other codecs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pmavae.errors import PMAVAEError
from pmavae_cli.console import Console, print_json, print_table

if TYPE_CHECKING:
    from pmavae_cli.benchmark import Score


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    multiple=True,
    default=("tiny",),
    show_default=True,
    metavar="WEIGHTS",
    help="A preset, an id, a file or a folder; several times for a comparison.",
)
@click.option(
    "--perceptual",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Feature network of the perceptual distance: vgg16, efficientnet-lite0, none; auto: the second, "
    "where it is installed.",
)
@click.option(
    "--peers",
    default="auto",
    show_default=True,
    metavar="NAMES",
    help="Other codecs, by comma: jpeg, webp, taesd; none; auto: those that are here.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line: every picture, then the means."
)
@click.option("--latents", is_flag=True, help="Tell how much each latent says: KL and active dimensions.")
@click.option("-q", "--quiet", is_flag=True, help="Only the means.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def bench(
    ctx: click.Context,
    folder: Path,
    weights: tuple[str, ...],
    perceptual: str,
    peers: str,
    device: str,
    threads: int | None,
    as_json: bool,
    latents: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Measure reconstruction on the pictures of FOLDER.

    Every picture goes through the bytes of a latent file. JPEG and WebP are given as many bytes as the
    first weights take.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from pmavae import PMAVAE
    from pmavae.training.evaluation import latent_use, picture_paths
    from pmavae.training.perceptual import perceptual_network
    from pmavae_cli.benchmark import codecs, means, scores
    from pmavae_cli.session import choose_device

    if threads:
        torch.set_num_threads(threads)
    console = Console(quiet=quiet, json=as_json, debug=debug)
    place = choose_device(device)
    paths = picture_paths(folder)
    chosen = _chosen_peers(peers, console)
    try:
        network = perceptual_network("efficientnet-lite0" if perceptual == "auto" else perceptual)
    except PMAVAEError as error:
        if perceptual != "auto":
            raise
        console.note(f"no perceptual distance: {error}")
        network = None
    if network is not None:
        network = network.to(place)
    failures: list[Path] = []

    def failed(path: Path, error: PMAVAEError) -> None:
        failures.append(path)
        console.failure(str(path), "bench", error)

    rows: list[Score] = []
    for row in scores(codecs(list(weights), chosen, place), paths, network, place, failed):
        rows.append(row)
        if as_json and not quiet:
            print_json(row.row())
    averages = means(rows)
    if as_json:
        for row in averages:
            print_json(row.row())
    else:
        listed = averages if quiet else [*rows, *averages]
        print_table([_header(), *(_cells(row, averages[0].seconds) for row in listed)])
    if latents and averages:
        for name in weights:
            model = PMAVAE.from_pretrained(name).to(place)
            for latent, use in latent_use(model, folder).items():
                fact = {"weights": model.weights_id, "latent": latent, "kl_nats": round(use.nats, 3)}
                fact |= {"active": use.active, "channels": use.channels}
                if as_json:
                    print_json(fact)
                else:
                    print_table([[f"{key} {value}" for key, value in fact.items()]])
    ctx.exit(1 if failures else 0)


def _chosen_peers(names: str, console: Console) -> list[str]:
    from pmavae_cli.peers import PEERS

    if names == "none":
        return []
    asked = list(PEERS) if names == "auto" else [name.strip() for name in names.split(",")]
    if unknown := [name for name in asked if name not in PEERS]:
        raise click.UsageError(f"--peers {unknown[0]} is none of {', '.join(PEERS)}.")
    chosen = []
    for name in asked:
        if (reason := PEERS[name].missing()) is None:
            chosen.append(name)
        elif names != "auto":
            raise PMAVAEError(f"peer {name} cannot be compared with: {reason}")
        else:
            console.detail(f"peer {name} is left out: {reason}")
    return chosen


def _header() -> list[str]:
    return ["codec", "picture", "PSNR dB", "SSIM", "perceptual", "bits/px", "time"]


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
