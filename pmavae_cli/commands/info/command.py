"""`pmavae info`: the size of a preset, or what files are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, PRESETS, ModelConfig
from pmavae.errors import PMAVAEError
from pmavae_cli.console import Console, one_line, print_json, print_table
from pmavae_cli.options import ANY_FILE, with_debug, with_offline
from pmavae_cli.plugin_manager import Registry
from pmavae_cli.run.inputs import find_inputs


@click.command()
@click.argument("files", nargs=-1, type=ANY_FILE, metavar="[FILE]...")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="The model to describe. Default: tiny.")
@with_offline
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@with_debug
@click.pass_context
def info(ctx: click.Context, files: tuple[str, ...], preset: str | None, as_json: bool, debug: bool) -> None:
    """Describe every FILE, or the model of a preset.

    A FILE is a picture, a latent file, a style file, a weights file, a folder or glob of these, or - for
    stdin. Each is read as a whole, so that a damaged one is found.
    """
    if files and preset:
        raise click.UsageError("Give a FILE or a --preset, not both.")
    if not files:
        _show(describe_preset(preset or "tiny"), as_json)
        return
    from pmavae_cli.commands.info.work import describe_file

    registry = ctx.find_object(Registry)
    assert registry is not None
    inputs = find_inputs(files, lambda path: ())
    console = Console(debug=debug)
    failures: list[tuple[str, PMAVAEError]] = [*inputs.failures]
    shown = 0
    for source in inputs.sources:
        try:
            facts = describe_file(source, registry.weights)
        except PMAVAEError as error:
            failures.append((source.name, error))
            continue
        if shown and not as_json:
            click.echo()
        _show(facts, as_json)
        shown += 1
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
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    decoder = sum(parameter.numel() for parameter in model.decoder.parameters())
    return {
        "preset": name,
        "encoder_parameters": encoder,
        "decoder_parameters": decoder,
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "z_base": f"H/{BASE_STRIDE} × W/{BASE_STRIDE} × {config.base_channels}",
        "z_detail": f"H/{DETAIL_STRIDE} × W/{DETAIL_STRIDE} × {config.detail_channels}",
        "z_style": f"1 × 1 × {config.style_channels}",
        "latents_per_pixel": floats_per_pixel(config),
    }


def floats_per_pixel(config: ModelConfig) -> float:
    """Numbers of z_base and z_detail for every pixel; z_style is one vector a picture."""
    return config.base_channels / BASE_STRIDE**2 + config.detail_channels / DETAIL_STRIDE**2


def _show(facts: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(dict(facts))
        return
    rows = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [[f"{key}: {name}", _listed(part)] for name, part in value.items()]
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


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
