"""The task posterize, on latents and by the command line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from pmavae_posterize import Posterize

from pmavae import Latents
from pmavae_cli.main import main


def test_latents_become_multiples_of_the_step() -> None:
    messages: list[str] = []
    context = SimpleNamespace(log=messages.append)
    latents = Latents(torch.randn(1, 24, 2, 3), torch.randn(1, 6, 4, 6), torch.zeros(1, 96, 1, 1), 32, 48)
    z_base = Posterize().transform(latents, context, 0.5).z_base  # type: ignore[arg-type]
    assert torch.equal(z_base * 2, (z_base * 2).round())
    assert (z_base - latents.z_base).abs().max() <= 0.25
    assert messages == ["rounding to multiples of 0.5"]


def test_the_command_writes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.radial_gradient("L").convert("RGB").resize((48, 32)).save("photo.png")
    assert main(["posterize", "photo.png", "--step", "2", "-o", "out.png"]) == 0
    with Image.open("out.png") as out:
        assert out.size == (48, 32)
    assert main(["posterize", "photo.png", "--step", "0"]) == 2
