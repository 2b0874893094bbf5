"""`pmavae bench`: how good weights are, beside others and beside other programs."""

from pathlib import Path

import click

from pmavae.network_configs import RESTORATIONS
from pmavae_cli import options
from pmavae_cli.console import Console


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option(
    "--task",
    type=click.Choice(RESTORATIONS),
    help="Measure restoration instead: pictures are damaged, and come back as near as they can.",
)
@click.option(
    "--conditions",
    metavar="NAMES",
    help="Damages, by comma. denoise: noise15, noise25, noise50, jpeg10, jpeg20, jpeg40, clean; "
    "upscale: x2, x4.  [default: all of the task]",
)
@options.with_preset("The weights of a preset.  [default: tiny]")
@click.option(
    "--weights",
    multiple=True,
    metavar="WEIGHTS",
    help="An id, a file, a folder or org/name[@revision][:file] instead; several times for a comparison.",
)
@click.option(
    "--perceptual",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Feature network of the perceptual distance: vgg16, efficientnet-lite0, none, or a VMamba with its "
    "weights, as vmamba-tiny=FILE; auto: the second, where it is installed.",
)
@click.option(
    "--peers",
    default="auto",
    show_default=True,
    metavar="NAMES",
    help="Other programs, by comma: linear, jpeg, webp, taesd; for denoise input, bm3d, nlmeans; for "
    "upscale bicubic, lanczos; none; auto: those that are here.",
)
@options.with_device
@options.with_offline
@options.with_threads
@options.with_json("One JSON object a line: every picture, then the means.")
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE", help="Write it all as one JSON file."
)
@options.with_overwrite("the file of --save")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N pictures of each folder.")
@click.option("--latents", is_flag=True, help="Tell how much each latent says: KL and active dimensions.")
@click.option("-q", "--quiet", is_flag=True, help="Only the means.")
@click.pass_context
@options.with_console
def bench(
    ctx: click.Context,
    console: Console,
    folders: tuple[Path, ...],
    task: str | None,
    conditions: str | None,
    preset: str | None,
    weights: tuple[str, ...],
    perceptual: str,
    peers: str,
    device: str,
    threads: int | None,
    save: Path | None,
    overwrite: bool,
    limit: int | None,
    latents: bool,
) -> None:
    """Measure reconstruction, or with --task restoration, on the pictures of every FOLDER.

    Every picture goes through the bytes of a latent file. JPEG and WebP are given as many bytes as the
    first weights take. With --task, every picture is damaged in all conditions, and restored twice: told
    how bad it is, and finding out as the command does.
    """
    if preset and weights:
        raise click.UsageError("Give --preset or --weights, not both.")
    judged = ctx.get_parameter_source("perceptual") is click.core.ParameterSource.COMMANDLINE
    if task and (latents or judged):
        raise click.UsageError(f"{'--latents' if latents else '--perceptual'} has no meaning with --task.")
    if conditions and not task:
        raise click.UsageError("--conditions has no meaning without --task.")
    if save:
        from pmavae_cli.run.checks import refuse_existing

        refuse_existing(save, overwrite)
        if not save.parent.is_dir():
            raise click.UsageError(f"{save.parent} is not a folder: create it before --save.")
    options.calm_threads()
    import torch

    from pmavae_cli.commands.bench.work import Bench
    from pmavae_cli.run.models import choose_device

    if threads:
        torch.set_num_threads(threads)
    run = Bench(console, peers, save, ctx.obj.weights, ctx.obj.tasks)
    place = choose_device(device)
    asked = weights or (preset or "tiny",)
    run.find_pictures(folders, limit)
    if run.pictures and task:
        from pmavae_cli.commands.bench.restoration import bench_restoration

        bench_restoration(run, asked, task, conditions, place)
    elif run.pictures:
        from pmavae_cli.commands.bench.reconstruction import bench_reconstruction

        bench_reconstruction(run, asked, perceptual, latents, place)
    ctx.exit(1 if run.failures else 0)
