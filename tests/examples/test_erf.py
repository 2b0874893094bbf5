"""`pmavae erf` of examples/plugin-vision: receptive fields that are known, and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from conftest import Command, picture
from PIL import Image
from torch import nn

from pmavae.ss2d import SS2D
from pmavae.vmamba import VMAMBA, VMamba
from pmavae.vmamba.network import SS2D as VMambaScan

SOURCE = Path(__file__).parents[2] / "examples/plugin-vision/src"
SMALL = replace(
    VMAMBA["vmamba-tiny"], preset="vmamba", channels=(8, 16, 32, 64), depths=(1, 1, 1, 1), classes=3
)
SHARES = (0.2, 0.3, 0.5, 0.99)


@pytest.fixture
def erf(pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command of the installed plugin, in a folder with a picture."""
    info = here / "site/pmavae_vision-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pmavae-vision\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[pmavae.plugins]\nvision = pmavae_vision\n")
    monkeypatch.syspath_prepend(SOURCE)
    monkeypatch.syspath_prepend(here / "site")
    picture((70, 50)).save("a.png")
    return lambda *arguments: pmavae("erf", *arguments)


@pytest.fixture
def field_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The receptive field of a network on noise of some size."""
    monkeypatch.syspath_prepend(SOURCE)
    from pmavae_vision.receptive_field import receptive_field

    def field(network: nn.Module, side: int, pictures: int = 2) -> Any:
        generator = torch.Generator().manual_seed(0)
        return receptive_field(
            network, [torch.rand(1, 3, side, side, generator=generator) for _ in range(pictures)]
        )

    return field


def box(size: int, channels: int = 3) -> nn.Conv2d:
    conv = nn.Conv2d(channels, 1, size, padding=size // 2, bias=False)
    nn.init.constant_(conv.weight, -2.0)
    return conv


@pytest.mark.parametrize(("layers", "reach"), [([7], 3), ([7, 5], 5), ([1], 0)])
def test_a_convolution_has_exactly_its_field(
    field_of: Callable[..., Any], layers: list[int], reach: int
) -> None:
    network = nn.Sequential(*[box(size, 1 if number else 3) for number, size in enumerate(layers)])
    field = field_of(network, 21)
    rows, columns = np.nonzero(field)
    assert {int(rows.min()), int(columns.min())} == {10 - reach}
    assert {int(rows.max()), int(columns.max())} == {10 + reach}
    assert len(rows) == (2 * reach + 1) ** 2
    if len(layers) == 1:
        assert np.unique(field[field > 0]).tolist() == [6.0]  # three colours of 2, without their sign


def test_squares_hold_their_shares_and_no_smaller_ones_do(field_of: Callable[..., Any]) -> None:
    from pmavae_vision.receptive_field import squares

    assert squares(field_of(box(7), 21), SHARES) == [5, 5, 5, 7]  # of 49 pixels a ring has 1, 8, 16, 24
    for side, seed in ((20, 0), (21, 1)):
        field = np.random.default_rng(seed).random((side, side)) ** 6
        sides = squares(field, SHARES)
        assert sides == sorted(sides) and sides[-1] <= side
        for share, found in zip(SHARES, sides, strict=True):
            held = [
                field[
                    max(0, side // 2 - n) : side // 2 + n + 1, max(0, side // 2 - n) : side // 2 + n + 1
                ].sum()
                for n in (found // 2, found // 2 - 1)
            ]
            assert held[0] >= share * field.sum() > (held[1] if found > 1 else 0)
    assert squares(np.ones((200, 200)), SHARES) == [91, 111, 143, 199]
    assert squares(np.zeros((4, 4)), SHARES) == [0] * 4


@pytest.mark.parametrize("kind", [SS2D, VMambaScan])
def test_a_scan_alone_sees_what_lies_before_it(field_of: Callable[..., Any], kind: type[nn.Module]) -> None:
    from pmavae_vision.receptive_field import far_part
    from pmavae_vision.scan_directions import keep_directions

    number = np.arange(81).reshape(9, 9)
    seen = [number <= 40, number.T <= 40, number >= 40, number.T >= 40]
    sides = ["above", "left", "below", "right"]
    for kept in ([0], [1], [2], [3], [0, 3], [0, 1, 2, 3], []):
        torch.manual_seed(0)
        scan = kind(4) if kind is SS2D else kind(4, SMALL)
        conv = scan.conv if kind is SS2D else scan.conv2d
        conv.weight.data[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = (
            0  # it looks at no neighbour
        )
        nn.init.normal_(scan.x_proj if kind is SS2D else scan.x_proj_weight)
        assert keep_directions(scan, kept) == 1
        into = nn.Conv2d(3, 4, 1)

        def features(x: torch.Tensor, scan: nn.Module = scan, into: nn.Module = into) -> torch.Tensor:
            if kind is SS2D:
                return scan(into(x))
            return scan(into(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

        field = field_of(features, 9, 1)
        expected = np.any([seen[direction] for direction in kept], axis=0) if kept else number == 40
        assert np.array_equal(field > 0, expected)
        if len(kept) == 1:
            assert getattr(far_part(field), sides[kept[0]]) > 0.7


def test_colours_follow_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SOURCE)
    from pmavae_vision.heat_map import heat_map, palette
    from pmavae_vision.receptive_field import compressed, decades

    field = np.array([[0.0, 1e-9, 0.01], [0.1, 1.0, 10.0]])
    assert decades(field, 3).tolist() == [[0, 0, 0], [pytest.approx(1 / 3), pytest.approx(2 / 3), 1]]
    assert decades(np.zeros((2, 2)), 3).tolist() == [[0, 0], [0, 0]]
    image = heat_map(compressed(field))
    assert (image.mode, image.size) == ("P", (3, 2))
    levels = np.asarray(image)
    assert levels[1].tolist() == [round(255 * np.log10(x + 1) / np.log10(11)) for x in (0.1, 1, 10)]
    light = np.asarray(image.convert("RGB")).sum(-1)
    assert light[0, 0] < light[1, 0] < light[1, 1] < light[1, 2]
    assert (np.diff(palette().astype(float) @ [0.299, 0.587, 0.114]) > 0).all()


def test_training_makes_the_encoder_global(erf: Callable[..., Any]) -> None:
    before = json.loads(erf("a.png", "--untrained", "tiny", "--size", 128, "--json", "-o", "0.png").lines[0])
    after = json.loads(erf("a.png", "--size", 128, "--json", "-o", "1.png").lines[0])
    assert (before["model"], after["model"], after["at"]) == ("tiny, untrained", "tiny-2", "stage16")
    assert before["reached"] < 0.2 and after["reached"] == 1.0
    assert before["far"]["share"] < 0.05 < after["far"]["share"]
    for facts in (before, after):
        assert facts["squares"] == sorted(facts["squares"], key=lambda row: row["side"])
        assert [row["contribution"] for row in facts["squares"]] == list(SHARES)
    down = json.loads(erf("a.png", "--size", 128, "--directions", 3, "--json", "-o", "3.png").lines[0])
    assert down["far"]["below"] > 2 * down["far"]["above"]
    with Image.open("1.png") as image:
        assert image.format == "PNG" and image.size == (128, 128)


def test_a_vmamba_and_folders_and_the_table(erf: Callable[..., Any], here: Path) -> None:
    torch.manual_seed(0)
    VMamba(SMALL).save_pretrained(here / "weights", "small-vmamba")
    (here / "photos").mkdir()
    for seed in range(3):
        picture((40, 64), seed).save(here / f"photos/{seed}.png")
    options = ("--weights", "weights", "--size", 64, "--limit", 2, "--decades", 6)
    result = erf("photos", "a.png", *options, "--at", "stage8")
    assert result.status == 0, result.err
    assert result.lines[0] == "erf.png: small-vmamba, stage8, directions all; pictures: 2, of 64 px"
    assert [line.split()[0] for line in result.lines[2:6]] == ["20%", "30%", "50%", "99%"]
    assert result.lines[-1] == "100.0% of the pixels have any gradient"
    first = Path("erf.png").read_bytes()
    assert erf("photos", *options, "--at", "stage8", "--overwrite").status == 0
    assert Path("erf.png").read_bytes() == first
    assert erf("photos", *options, "--at", "stage8", "--directions", "none", "--overwrite").status == 0
    assert Path("erf.png").read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["none.png"], 1, "none.png cannot be read"),
        (["empty"], 1, "empty"),
        (["bad.png"], 1, "bad.png"),
        (["a.png", "--at", "stage32"], 1, "tiny-2 has no stage32: use --at stage2, stage4"),
        (["a.png", "--untrained", "vmamba-tiny", "--at", "z_base"], 1, "has no z_base: use --at stage4"),
        (["a.png", "--untrained", "huge"], 1, "there is no preset huge: use one of tiny, small"),
        (["a.png", "--weights", "nothing"], 1, "there are no weights nothing"),
        (["a.png", "--weights", "denoise-tiny-1"], 1, "denoise"),
        (["a.png", "--size", "100"], 1, "--size 100 is no multiple of 32: use 128"),
        (["a.png", "-o", "there.png"], 1, "there.png exists already"),
        (["a.png", "-o", "a.png", "--overwrite"], 1, "a.png would be written over its own input"),
        (["a.png", "-o", "out.jpg"], 2, "out.jpg is no .png file"),
        (["a.png", "--weights", "tiny", "--untrained", "tiny"], 2, "not both"),
        (["a.png", "--directions", "5"], 2, "--directions"),
    ],
)
def test_errors_are_one_sentence(
    erf: Callable[..., Any], here: Path, arguments: list[str], status: int, reason: str
) -> None:
    (here / "empty").mkdir()
    (here / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (here / "there.png").write_bytes(b"mine")
    result = erf(*arguments)
    assert (result.status, result.out) == (status, b"")
    assert reason in " ".join(result.err.split())
    assert "Traceback" not in result.err
    if status == 1:
        assert len(result.err.splitlines()) == 1
    assert not Path("erf.png").exists() and Path("there.png").read_bytes() == b"mine"


def test_help_does_not_load_torch(erf: Callable[..., Any]) -> None:
    code = (
        "import sys; from pmavae_cli.main import main; main(['erf', '--help']); "
        "print('torch' in sys.modules, 'PIL' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path[:2]}; {code}"],
        capture_output=True,
        text=True,
    )
    assert "--directions" in done.stdout and done.stdout.splitlines()[-1] == "False False"


def test_every_option_is_documented_and_every_picture_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SOURCE)
    from pmavae_vision.erf_command import erf

    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "erf.md").read_text("utf-8")
    for param in erf.params:
        assert isinstance(param, click.Argument) or f"`{param.opts[-1]}" in text, param.name
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", text)
    assert len(pictures) == 8
    assert all((docs / name).stat().st_size < 150_000 for name in pictures)
