"""`pmavae info`: the size of a preset, or what files are."""

from collections.abc import Mapping
from typing import Any

import click

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, PRESETS
from pmavae.errors import PMAVAEError
from pmavae_cli.console import Console, one_line, print_json, print_table
from pmavae_cli.options import ANY_FILE, with_console, with_json, with_offline, with_preset
from pmavae_cli.run.inputs import find_inputs


@click.command()
@click.argument("files", nargs=-1, type=ANY_FILE, metavar="[FILE]...")
@with_preset("The model to describe. Default: tiny.")
@with_offline
@with_json()
@click.pass_context
@with_console
def info(ctx: click.Context, console: Console, files: tuple[str, ...], preset: str | None) -> None:
    """Describe every FILE, or the model of a preset.

    A FILE is a picture, a latent file, a style file, a weights file, a folder or glob of these, or - for
    stdin. Each is read as a whole, so that a damaged one is found.
    """
    if files and preset:
        raise click.UsageError("Give a FILE or a --preset, not both.")
    as_json = console.json
    if not files:
        _show(describe_preset(preset or "tiny"), as_json)
        return
    from pmavae_cli.commands.info.work import describe_file

    inputs = find_inputs(files, lambda path: ())
    failures: list[tuple[str, PMAVAEError]] = [*inputs.failures]
    shown = 0
    for source in inputs.sources:
        try:
            facts = describe_file(source, ctx.obj.weights)
        except PMAVAEError as error:
            failures.append((source.name, error))
            continue
        if shown and not as_json:
            click.echo()
        _show(facts, as_json)
        shown += 1
    console.json = False  # the rows of failures are other than those of a task's
    for name, failure in failures:
        console.failure(name, "info", failure)
        if as_json:
            print_json({"file": name, "error": one_line(str(failure))})
    ctx.exit(1 if failures else 0)


def describe_preset(name: str) -> dict[str, Any]:
    """Parameters of the built model, and its latents."""
    from pmavae import PMAVAE

    config = PRESETS[name]
    model = PMAVAE(config)

    def parameters(module: Any) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    return {
        "preset": name,
        "encoder_parameters": parameters(model.encoder),
        "decoder_parameters": parameters(model.decoder),
        "total_parameters": parameters(model),
        "z_base": f"H/{BASE_STRIDE} × W/{BASE_STRIDE} × {config.base_channels}",
        "z_detail": f"H/{DETAIL_STRIDE} × W/{DETAIL_STRIDE} × {config.detail_channels}",
        "z_style": f"1 × 1 × {config.style_channels}",
        # z_style is one vector a picture
        "latents_per_pixel": config.base_channels / BASE_STRIDE**2
        + config.detail_channels / DETAIL_STRIDE**2,
    }


def _show(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(dict(facts))
        return
    rows = []
    for key, value in facts.items():
        if isinstance(value, dict):
            for name, part in value.items():
                values = part if isinstance(part, list | tuple) else [part]
                rows.append([f"{key}: {name}", ", ".join(map(str, values))])
        else:
            rows.append([key.replace("_", " "), _shown(value)])
    print_table(rows)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}".replace(",", " ")
    if value == []:
        return "nothing"
    if isinstance(value, list):
        return " × ".join(map(str, value)) if isinstance(value[0], int) else one_line(", ".join(value))
    # What a file says of itself may hold line breaks.
    return one_line(str(value))
