"""`pmavae info`, and what the documents say about the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command, picture

from pmavae_cli.options import COMMON_OPTIONS
from pmavae_cli.plugin_manager import load_plugins

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("preset", "encoder", "decoder"), [("tiny", 0.56, 1.91), ("small", 2.0, 4.27)])
def test_info_of_a_preset_counts_the_built_model(
    pmavae: Command, preset: str, encoder: float, decoder: float
) -> None:
    facts = json.loads(pmavae("info", "--preset", preset, "--json").out)
    assert facts["encoder_parameters"] == pytest.approx(encoder * 1e6, rel=0.02)
    assert facts["decoder_parameters"] == pytest.approx(decoder * 1e6, rel=0.02)
    assert facts["total_parameters"] == facts["encoder_parameters"] + facts["decoder_parameters"]


def test_info_of_a_latent_file(pmavae: Command, weights: str, here: Path) -> None:
    image = picture()
    image.putalpha(128)
    image.save("a.png")
    assert pmavae("encode", "a.png", "--weights", weights).status == 0
    facts = json.loads(pmavae("info", "a.safetensors", "--json").out)
    assert (facts["width"], facts["height"], facts["padding"]) == (48, 40, [0, 8])
    assert (facts["z_base"], facts["z_detail"]) == ([24, 3, 3], [6, 6, 6])
    assert (facts["weights"], facts["carried"]) == ("test-tiny", ["alpha"])
    assert "24 × 3 × 3" in pmavae("info", "a.safetensors").out.decode()


def test_info_of_something_else(pmavae: Command, here: Path) -> None:
    picture().save("a.png")
    result = pmavae("info", "a.png")
    assert (result.status, result.out) == (1, b"")
    assert result.err.startswith("pmavae: a.png is not a safetensors file")
    assert pmavae("info", "gone.safetensors").status == 1
    assert pmavae("info", "a.png", "--preset", "tiny").status == 2


def test_every_option_and_task_is_documented() -> None:
    text = (DOCS / "command-line.md").read_text()
    tasks = load_plugins().tasks
    flags = [flag for option in COMMON_OPTIONS for flag in option.opts]
    flags += [
        flag for task in tasks.values() for param in task.params for flag in param.opts if flag[0] == "-"
    ]
    for word in [*flags, *tasks]:
        assert f"`{word}" in text, word
