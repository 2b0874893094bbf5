"""`pmavae info`: the size of a preset, or what a latent file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pmavae.config import BASE_STRIDE, DETAIL_STRIDE, ModelConfig
from pmavae.presets import PRESETS
from pmavae_cli.console import print_json, print_table
from pmavae_cli.inputs import single_input


@click.command()
@click.argument("file", required=False)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="The model to describe. Default: tiny.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def info(file: str | None, preset: str | None, as_json: bool, debug: bool) -> None:
    """Describe a latent FILE, or the model of a preset."""
    if file and preset:
        raise click.UsageError("Give a FILE or a --preset, not both.")
    facts = describe_file(file) if file else describe_preset(preset or "tiny")
    if as_json:
        print_json(facts)
    else:
        print_table([[key.replace("_", " "), _shown(value)] for key, value in facts.items()])


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


def describe_file(name: str) -> dict[str, Any]:
    """The header and the shapes of a latent file; raises LatentFileError for anything else."""
    from pmavae.latent_file import read_latents

    single_input(name, "FILE")
    latents, header = read_latents(Path(name), PRESETS.__getitem__)
    bottom, right = latents.padding
    return {
        "file": name,
        "preset": header.preset,
        "weights": header.weights_id,
        "weights_sha256": header.weights_sha256,
        "width": latents.width,
        "height": latents.height,
        "padding": [right, bottom],
        **{key: list(tensor.shape[1:]) for key, tensor in latents.tensors().items()},
        "carried": sorted(header.picture),
    }


def _shown(value: Any) -> str:
    if isinstance(value, int) and value >= 10_000:
        return f"{value:,}".replace(",", " ")
    if value == []:
        return "nothing"
    if isinstance(value, list):
        return " × ".join(map(str, value)) if isinstance(value[0], int) else ", ".join(value)
    return str(value)
