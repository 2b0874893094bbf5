"""`pmavae weights`: which weights there are, and how more of them come and go."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pmavae_cli import options
from pmavae_cli.console import Console, print_json
from pmavae_cli.plugin_manager import Registry

_task = click.option(
    "--task",
    default="base",
    show_default=True,
    help="Where REF is a preset: the task whose weights of it are meant.",
)


@click.group(short_help="List, fetch, verify, import and push weights.")
def weights() -> None:
    """List, fetch, verify, import and push weights.

    Weights are safetensors files: those in the package and in plugins, those in the Hugging Face cache, and
    those on the Hub. Every task takes them as --weights. The variables HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE mean what they mean everywhere.
    """


@weights.command(name="list", short_help="Show the weights that are shipped, cached or known.")
@options.with_json()
@options.with_offline
@click.pass_obj
@options.with_console
def list_(registry: Registry, console: Console) -> None:
    """Show all weights with preset, task, size, licence, scores, hash and state, without network.

    State is shipped, cached (in the Hugging Face cache), remote (pmavae weights fetch gets them) or missing.
    """
    from pmavae.pretrained.hub import cached
    from pmavae_cli.commands.weights.listing import all_weights, show

    rows = all_weights(registry.weights, cached())
    if console.json:
        for row in rows:
            print_json(asdict(row))
    else:
        show(rows)


@weights.command(short_help="Get weights from the Hub, and print their path.")
@click.argument("ref")
@_task
@click.option("--force", is_flag=True, help="Fetch again what is in the cache.")
@options.with_offline
@options.with_quiet
@click.pass_obj
@options.with_console
def fetch(registry: Registry, console: Console, ref: str, task: str, force: bool) -> None:
    """Get weights from the Hugging Face Hub into its cache, verify them, and print the path of the file.

    REF is an id or a preset, or org/name[@revision][:file]. What is here already is verified and left where
    it is. A download whose connection breaks off goes on where it was.
    """
    from pmavae_cli.progress import find_weights

    found = find_weights(ref, task, registry.weights, console, force=force)
    if found.reference is None:
        from pmavae.pretrained.weights import load_weights

        load_weights(found.path, found.entry)
        console.note(f"{ref} is here already: {'it came with its package' if found.entry else 'a file'}")
    click.echo(os.fsencode(found.path))


@weights.command(short_help="Hash weights again, and tell which are not what they were.")
@click.argument("names", nargs=-1, metavar="[ID]...")
@options.with_json()
@options.with_offline
@click.pass_context
@options.with_console
def verify(ctx: click.Context, console: Console, names: tuple[str, ...]) -> None:
    """Hash all weights that are shipped or cached, or those of each ID, and compare.

    An ID is what pmavae weights list shows, or org/name for all that the cache has of a repository. Exit
    status 1 if one is damaged or gone.
    """
    from pmavae.pretrained.hub import cached
    from pmavae_cli.commands.weights import listing

    wrong = 0
    for row in listing.chosen(listing.all_weights(ctx.obj.weights, cached()), names):
        sha256, error = listing.verify(row)
        if console.json:
            state = "damaged" if error else "ok"
            print_json({"id": row.id, "state": state, "path": row.path, "sha256": sha256, "error": error})
        elif not error:
            click.echo(f"ok  {(sha256 or '')[:8]}  {row.id}")
        if error:
            wrong += 1
            console.note(error)
    ctx.exit(1 if wrong else 0)


@weights.command(short_help="Print the path of weights that are here.")
@click.argument("ref")
@_task
@options.with_offline
@click.pass_obj
@options.with_console
def path(registry: Registry, console: Console, ref: str, task: str) -> None:
    """Print the path of a weights file that is shipped, cached or given, without network.

    Exit status 1 where it is none of these. REF is as for pmavae weights fetch.
    """
    from pmavae_cli.progress import find_weights

    click.echo(os.fsencode(find_weights(ref, task, registry.weights, console, offline=True).path))


@weights.command(name="import", short_help="Make a weights file of a training run or a .pth file.")
@click.argument("source", metavar="RUN|FILE", type=click.Path(path_type=Path, readable=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    metavar="PATH",
    help="The weights file, a .safetensors.",
)
@click.option(
    "--id", "weights_id", metavar="ID", help="Its id.  [default: that of the run, else of the file]"
)
@click.option("--task", help="What a .pth file is of.  [default: found out; texture-vary has to be named]")
@click.option("--preset", help="The preset of a .pth file.  [default: found out]")
@click.option(
    "--codec", metavar="WEIGHTS", help="With --task texture-vary: the autoencoder.  [default: of the preset]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    default="float16",
    show_default=True,
    help="Precision of the tensors in the file.",
)
@options.with_overwrite()
@options.with_json("One JSON object instead of the path.")
@options.with_offline
@click.pass_obj
@options.with_console
def import_(
    registry: Registry,
    console: Console,
    source: Path,
    output: Path,
    weights_id: str | None,
    task: str | None,
    preset: str | None,
    codec: str | None,
    dtype: str,
    overwrite: bool,
) -> None:
    """Make a weights file, as every task takes it, of a training run or of a state dict.

    RUN is the folder of pmavae train. FILE is a .pth, .pt, .bin or .ckpt of torch.save, of which tensors
    alone are read and no code is run: a state dict, also inside "state_dict", "model" or "ema" and with
    names that begin with module. or model., whose tensors have to be those of a preset or, under any of the
    released names, of a VMamba; or a weights file, to be given another id or precision.
    """
    from pmavae_cli.run.checks import refuse_output

    if output.suffix.lower() != ".safetensors":
        raise click.UsageError(f"{output} has another suffix than .safetensors: add that.")
    refuse_output(output, {source: str(source)}, overwrite)
    options.calm_threads()
    import torch

    from pmavae.pretrained.weights import save_weights
    from pmavae_cli.commands.info.work import describe_weights
    from pmavae_cli.commands.weights.importing import Wanted, read_import
    from pmavae_cli.progress import find_weights

    if codec and task != "texture-vary":
        raise click.UsageError("--codec has no meaning without --task texture-vary.")
    if codec:
        codec = str(find_weights(codec, "base", registry.weights, console).path)
    found = read_import(source, Wanted(task, preset, codec), registry.weights, registry.trainings)
    name = weights_id or found.id or output.stem
    save_weights(output, found.state, found.config, name, getattr(torch, dtype))
    if not console.json:
        click.echo(os.fsencode(output))
        return
    facts = describe_weights(output, registry.weights)
    shown = ("id", "task", "preset", "parameters", "sha256")
    print_json({"output": str(output), **{name: facts[name] for name in shown}})


@weights.command(short_help="Upload a folder of weights to the Hub.")
@click.argument("folder", type=click.Path(path_type=Path, readable=False))
@click.argument("repo", metavar="ORG/NAME")
@click.option("--private", is_flag=True, help="Where the repository is made: only you see it.")
@click.option("--message", default="Upload weights", show_default=True, help="Of the commit.")
@click.option("--revision", metavar="BRANCH", help="A branch, made if need be.  [default: main]")
@click.option("--licence", "--license", "licence", metavar="SPDX", help="For the model card, such as MIT.")
@click.option(
    "--dataset", "datasets", multiple=True, metavar="ID", help="For the model card; several times if need be."
)
@options.with_debug
@click.pass_obj
def push(registry: Registry, folder: Path, repo: str, **choice: Any) -> None:
    """Upload model.safetensors of FOLDER, a config.json and a model card to ORG/NAME; print the commit's URL.

    The card is README.md of the folder; where there is none, one is made, with licence, data and scores of
    released weights, or what is said here. Nothing else is uploaded. The token is that of HF_TOKEN or of
    hf auth login; nothing is asked for.
    """
    from pmavae_cli.commands.weights.importing import push_folder

    click.echo(push_folder(folder, repo, registry.weights, **choice))
