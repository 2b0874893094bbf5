"""`pmavae info`, and what the documents say about the command line."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, picture
from PIL import Image, ImageCms
from PIL.ExifTags import Base
from safetensors.torch import save_file

from pmavae.pretrained.manifest import WeightsEntry, read_manifest, weights_folder
from pmavae_cli.commands.compare.command import compare
from pmavae_cli.commands.completion import SHELLS
from pmavae_cli.commands.info.command import info
from pmavae_cli.options import COMMON_OPTIONS
from pmavae_cli.plugin_manager import load_plugins

DOCS = Path(__file__).parents[2] / "docs"
MANIFEST = read_manifest(weights_folder() / "manifest.json")


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


def save_pictures() -> dict[str, dict[str, Any]]:
    """One picture in many kinds of files, and what is to be said of each."""
    image = picture()
    grey = np.asarray(image.convert("L"))
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif[Base.Artist] = "A. Painter"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save("turned.jpg", exif=exif, icc_profile=profile, xmp=b"<x:xmpmeta/>")
    Image.fromarray(grey.astype(np.uint16) * 257).save("deep.png")
    Image.fromarray(grey).save("grey.tif")
    image.convert("CMYK").save("ink.jpg")
    seen = image.copy()
    seen.putalpha(128)
    seen.save("seen.webp", lossless=True)
    image.convert("1").save("two.png")
    image.save("a.png", icc_profile=b"no profile at all")
    image.save("moving.webp", save_all=True, append_images=[picture(seed=1)])
    plain = {"kind": "picture", "width": 48, "height": 40, "orientation": 1, "exif": False, "xmp": False}
    return {
        "turned.jpg": {
            **plain,
            "format": "JPEG",
            "width": 40,
            "height": 48,
            "mode": "RGB",
            "bits_per_channel": 8,
            "transparency": False,
            "orientation": 6,
            "exif": True,
            "xmp": True,
            "frames": 1,
            "notes": [],
        },
        "deep.png": {**plain, "format": "PNG", "bits_per_channel": 16},
        "grey.tif": {**plain, "format": "TIFF", "mode": "L", "bits_per_channel": 8, "profile": None},
        "ink.jpg": {**plain, "mode": "CMYK", "bits_per_channel": 8},
        "seen.webp": {**plain, "format": "WEBP", "mode": "RGBA", "transparency": True},
        "two.png": {**plain, "mode": "1", "bits_per_channel": 1},
        "a.png": {**plain, "mode": "RGB", "profile": "damaged"},
        "moving.webp": {**plain, "frames": 2, "notes": ["the first of its 2 frames is used"]},
    }


def test_info_of_pictures(pmavae: Command, here: Path) -> None:
    expected = save_pictures()
    result = pmavae("info", *expected, "--json")
    assert (result.status, result.err) == (0, "")
    for (name, facts), line in zip(expected.items(), result.lines, strict=True):
        found = json.loads(line)
        assert found["file"] == name
        assert found["bytes"] == Path(name).stat().st_size
        assert {key: found[key] for key in facts} == facts, name
    assert json.loads(result.lines[0])["profile"].startswith("sRGB")
    table = pmavae("info", "turned.jpg", "moving.webp").out.decode()
    assert table.count("\n\n") == 1
    assert re.search(r"^orientation +6$", table, re.M)
    assert re.search(r"^profile +sRGB", table, re.M)
    assert re.search(r"^notes +the first of its 2 frames is used$", table, re.M)


def test_info_of_a_style_file(pmavae: Command, weights: str, here: Path) -> None:
    picture().save("a.png")
    assert pmavae("encode", "a.png", "--only", "style", "--weights", weights).status == 0
    facts = json.loads(pmavae("info", "a.style.safetensors", "--json").out)
    assert (facts["kind"], facts["z_style"], facts["weights"]) == ("style", [96, 1, 1], "test-tiny")
    assert facts["weights_released"] is False


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry.id)
def test_info_of_released_weights(pmavae: Command, entry: WeightsEntry) -> None:
    facts = json.loads(pmavae("info", weights_folder() / entry.file, "--json").out)
    assert (facts["kind"], facts["released"], facts["licence"]) == ("weights", True, entry.licence)
    for name in ("id", "task", "preset", "parameters", "sha256"):
        assert facts[name] == getattr(entry, name), name


def test_info_of_other_weights(pmavae: Command, weights: str) -> None:
    file = Path(weights) / "model.safetensors"
    facts = json.loads(pmavae("info", file, "--json").out)
    assert (facts["id"], facts["task"], facts["released"]) == ("test-tiny", "base", False)
    assert facts["config"]["base_channels"] == 24
    assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert re.search(r"^config: encoder_blocks +1, 2, 2, 2$", pmavae("info", file).out.decode(), re.M)


def test_wrong_files_are_one_sentence_each(pmavae: Command, weights: str, here: Path) -> None:
    picture().save("a.png")
    whole = Path("a.png").read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("empty.jpg").touch()
    Path("text.md").write_text("# a text, and no picture\n")
    data = bytearray((Path(weights) / "model.safetensors").read_bytes())
    Path("cut.safetensors").write_bytes(data[:-1])
    save_file({"x": torch.zeros(2)}, "foreign.safetensors")
    names = ["cut.png", "empty.jpg", "text.md", "cut.safetensors", "foreign.safetensors", "gone.png"]
    result = pmavae("info", *names[:3], "a.png", *names[3:])
    assert (result.status, result.lines[0].split()) == (1, ["file", "a.png"])
    messages = result.err.splitlines()
    assert sorted(line.split(":")[1].split()[0] for line in messages) == sorted(names)
    assert any("neither latents nor weights" in line for line in messages)
    rows = [json.loads(line) for line in pmavae("info", "a.png", *names, "--json").lines]
    assert rows[0]["kind"] == "picture"
    assert {row["file"]: bool(row["error"]) for row in rows[1:]} == dict.fromkeys(names, True)
    assert pmavae("info", "a.png", "--preset", "tiny").status == 2


def test_folders_and_stdin(pmavae: Command, weights: str, here: Path) -> None:
    Path("folder").mkdir()
    picture().save("folder/a.png")
    picture().save("folder/b.jpg")
    rows = [json.loads(line) for line in pmavae("info", "folder", "--json").lines]
    assert [row["format"] for row in rows] == ["PNG", "JPEG"]
    data = Path("folder/a.png").read_bytes()
    assert json.loads(pmavae("info", "-", "--json", stdin=data).out)["width"] == 48
    assert pmavae("encode", "folder/a.png", "-o", "a.safetensors", "--weights", weights).status == 0
    data = Path("a.safetensors").read_bytes()
    assert json.loads(pmavae("info", "-", "--json", stdin=data).out)["kind"] == "latents"
    data = (Path(weights) / "model.safetensors").read_bytes()
    result = pmavae("info", "-", stdin=data)
    assert (result.status, result.out) == (1, b"")
    assert "name their file" in result.err


def test_a_header_that_begins_like_a_picture(pmavae: Command, weights: str, here: Path) -> None:
    picture().save("a.png")
    assert pmavae("encode", "a.png", "--weights", weights).status == 0
    data = Path("a.safetensors").read_bytes()
    size, wanted = (int.from_bytes(start, "little") for start in (data[:8], b"BM"))
    header = data[8 : 8 + size].ljust(wanted)  # spaces may follow a header
    Path("a.bin").write_bytes(b"BM".ljust(8, b"\0") + header + data[8 + size :])
    assert json.loads(pmavae("info", "a.bin", "--json").out)["kind"] == "latents"


def test_every_option_and_task_is_documented() -> None:
    text = (DOCS / "command-line.md").read_text()
    tasks = load_plugins().tasks
    flags = [flag for option in COMMON_OPTIONS for flag in option.opts]
    flags += [
        flag for task in tasks.values() for param in task.params for flag in param.opts if flag[0] == "-"
    ]
    for word in [*flags, *tasks]:
        assert f"`{word}" in text, word


def test_every_option_of_the_small_commands_is_documented() -> None:
    text = (DOCS / "command-line.md").read_text()
    section = text[text.index("## Commands beside the tasks") :].split("\n## ")[0]
    flags = [flag for command in (compare, info) for param in command.params for flag in param.opts]
    for word in [*(flag for flag in flags if flag[0] == "-"), *SHELLS]:
        assert f"`{word}" in section, word
