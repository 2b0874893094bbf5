"""`pmavae bench`: how faithful weights are, beside other codecs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pmavae.errors import PMAVAEError
from pmavae.presets import PRESETS
from pmavae_cli.console import Console, print_json, print_table

if TYPE_CHECKING:
    import torch

    from pmavae.training.perceptual import PerceptualNetwork
    from pmavae_cli.benchmark import Score


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="The weights of a preset.  [default: tiny]")
@click.option(
    "--weights",
    multiple=True,
    metavar="WEIGHTS",
    help="An id, a file or a folder instead; several times for a comparison.",
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
    help="Other codecs, by comma: linear, jpeg, webp, taesd; none; auto: those that are here.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line: every picture, then the means."
)
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE", help="Write it all as one JSON file."
)
@click.option("--overwrite", is_flag=True, help="Replace the file of --save.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N pictures of each folder.")
@click.option("--latents", is_flag=True, help="Tell how much each latent says: KL and active dimensions.")
@click.option("-q", "--quiet", is_flag=True, help="Only the means.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def bench(
    ctx: click.Context,
    folders: tuple[Path, ...],
    preset: str | None,
    weights: tuple[str, ...],
    perceptual: str,
    peers: str,
    device: str,
    threads: int | None,
    as_json: bool,
    save: Path | None,
    overwrite: bool,
    limit: int | None,
    latents: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Measure reconstruction on the pictures of every FOLDER.

    Every picture goes through the bytes of a latent file. JPEG and WebP are given as many bytes as the
    first weights take.
    """
    if preset and weights:
        raise click.UsageError("Give --preset or --weights, not both.")
    if save and save.exists() and not overwrite:
        raise click.UsageError(f"{save} exists: use --overwrite to replace it.")
    if save and not save.parent.is_dir():
        raise click.UsageError(f"{save.parent} is not a folder: create it before --save.")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from pmavae.training.evaluation import latent_use, picture_paths
    from pmavae_cli.benchmark import codecs, load_models, means, scores
    from pmavae_cli.session import choose_device

    if threads:
        torch.set_num_threads(threads)
    console = Console(quiet=quiet, json=as_json, debug=debug)
    place = choose_device(device)
    chosen = _chosen_peers(peers, console)
    failures: list[Path] = []

    def failed(path: Path, error: PMAVAEError) -> None:
        failures.append(path)
        console.failure(str(path), "bench", error)

    paths: list[Path] = []
    for folder in dict.fromkeys(folders):
        try:
            paths += picture_paths(folder)[:limit]
        except PMAVAEError as error:
            failed(folder, error)
    if not paths:
        ctx.exit(1)
    network = _network(perceptual, place, console)
    models = load_models(weights or (preset or "tiny",), place)
    rows: list[Score] = []
    for row in scores(codecs(models, chosen), paths, network, place, failed):
        rows.append(row)
        if as_json and not quiet:
            print_json(row.row())
    averages = means(rows)
    facts: list[dict[str, Any]] = []
    if latents and rows:
        readable = [path for path in paths if path not in failures]
        for name, model in models.items():
            for latent, use in latent_use(model, readable).items():
                facts.append({"weights": name, "latent": latent, "kl_nats": round(use.nats, 3)})
                facts[-1] |= {"active": use.active, "channels": use.channels}
    if as_json:
        for fact in (*(row.row() for row in averages), *facts):
            print_json(fact)
    elif rows:
        listed = averages if quiet else [*rows, *averages]
        print_table([_header(), *(_cells(row, averages[0].seconds) for row in listed)])
        if facts:
            click.echo()
            print_table(
                [
                    [key.replace("_", " ") for key in facts[0]],
                    *([str(value) for value in fact.values()] for fact in facts),
                ]
            )
    if save and rows:
        from pmavae.tensor_file import write_atomically

        report = {"rows": [r.row() for r in rows], "means": [r.row() for r in averages], "latents": facts}
        write_atomically(save, json.dumps(report, indent=1).encode(), error=PMAVAEError)
    ctx.exit(1 if failures else 0)


def _network(name: str, device: torch.device, console: Console) -> PerceptualNetwork | None:
    """What judges the perceptual distance; raises PMAVAEError where it was asked for and cannot be had."""
    from pmavae.training.perceptual import perceptual_network

    try:
        network = perceptual_network("efficientnet-lite0" if name == "auto" else name)
    except PMAVAEError as error:
        if name != "auto":
            raise
        console.note(f"no perceptual distance: {error}")
        return None
    return network if network is None else network.to(device)


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
