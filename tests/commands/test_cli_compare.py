"""`pmavae compare`: measures, pictures and pages of two files."""

from __future__ import annotations

import io
import json
import os
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, picture
from PIL import Image, ImageCms

from pmavae_cli.commands.compare import work


def shifted(image: Image.Image, by: tuple[int, int, int]) -> Image.Image:
    return Image.fromarray(np.asarray(image) + np.array(by, np.uint8))


@pytest.fixture
def pair(here: Path) -> Path:
    """a.png, and b.png that is brighter by 4 in red and 1 in blue."""
    image = picture().point(lambda value: value // 2)
    image.save("a.png")
    shifted(image, (4, 0, 1)).save("b.png")
    return here


def test_the_measures_of_a_shift(pmavae: Command, pair: Path) -> None:
    found = json.loads(pmavae("compare", "a.png", "b.png", "--json").out)
    assert (found["a"], found["b"], found["width"], found["height"]) == ("a.png", "b.png", 48, 40)
    assert found["largest_difference"] == {"red": 4, "green": 0, "blue": 1}
    assert found["mean_shift"] == {"red": 4.0, "green": 0.0, "blue": 1.0}
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / (17 / 3)), abs=1e-3)
    assert 0.9 < found["ssim"] < 1
    assert (found["equal"], found["resized"], found["output"]) == (False, False, None)


def test_the_table(pmavae: Command, pair: Path) -> None:
    result = pmavae("compare", "a.png", "b.png")
    assert (result.status, result.err) == (0, "")
    rows = [re.split(r"  +", line) for line in result.lines]
    assert rows[0] == ["", "all", "red", "green", "blue"]
    assert rows[1] == ["PSNR (dB)", "40.60"]
    assert rows[3] == ["largest difference", "4", "4", "0", "1"]
    assert rows[4] == ["mean shift", "+1.67", "+4.00", "+0.00", "+1.00"]


def test_equal_pictures_are_valid_json(pmavae: Command, pair: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(pmavae("compare", "a.png", "a.png", "--json").out, parse_constant=refuse)
    assert (found["equal"], found["psnr"], found["ssim"]) == (True, None, 1.0)
    assert "∞" in pmavae("compare", "a.png", "a.png").out.decode()


def test_a_latent_file_is_what_it_decodes_to(pmavae: Command, weights: str, pair: Path) -> None:
    assert pmavae("encode", "a.png", "--weights", weights).status == 0
    assert pmavae("decode", "a.safetensors", "-o", "c.png", "--weights", weights).status == 0
    found = json.loads(pmavae("compare", "a.safetensors", "c.png", "--weights", weights, "--json").out)
    assert found["equal"]
    other = pmavae("compare", "a.safetensors", "c.png")
    assert (other.status, other.out) == (1, b"")
    assert "was made with weights test-tiny" in other.err


def test_grey_has_one_channel_and_colour_beside_it_three(pmavae: Command, pair: Path) -> None:
    Image.open("a.png").convert("L").save("g.png")
    Image.open("a.png").convert("L").point(lambda value: value + 3).save("h.png")
    found = json.loads(pmavae("compare", "g.png", "h.png", "--json").out)
    assert found["mean_shift"] == {"grey": 3.0}
    assert set(json.loads(pmavae("compare", "g.png", "b.png", "--json").out)["mean_shift"]) == {
        "red",
        "green",
        "blue",
    }


def test_sixteen_bits_are_compared_as_they_are_read(pmavae: Command, here: Path) -> None:
    grey = np.asarray(picture().convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save("deep.png")
    Image.fromarray(grey).save("flat.png")
    assert json.loads(pmavae("compare", "deep.png", "flat.png", "--json").out)["equal"]


def test_only_what_can_be_seen_of_transparent_pictures_counts(pmavae: Command, pair: Path) -> None:
    for name, colour in (("c.png", (255, 0, 0)), ("d.png", (0, 255, 0))):
        image = Image.open("a.png").convert("RGBA")
        image.paste((*colour, 0), (0, 0, 20, 20))
        image.save(name)
    found = json.loads(pmavae("compare", "c.png", "d.png", "--json").out)
    assert found["equal"] and found["mean_shift"]["alpha"] == 0
    found = json.loads(pmavae("compare", "c.png", "a.png", "--json").out)
    assert found["largest_difference"]["alpha"] == 255
    assert found["mean_shift"]["alpha"] == pytest.approx(255 * 400 / (48 * 40), abs=1e-3)
    assert found["largest_difference"]["red"] > 100  # from white to the picture


def test_other_sizes_are_refused_or_resized(pmavae: Command, pair: Path) -> None:
    Image.open("b.png").resize((24, 20)).save("small.png")
    result = pmavae("compare", "a.png", "small.png", "-o", "c.png")
    assert (result.status, result.out) == (1, b"")
    assert result.err == (
        "pmavae: a.png is 48×40 px and small.png is 24×20 px: give pictures of one size, or --resize\n"
    )
    assert not Path("c.png").exists()
    found = json.loads(pmavae("compare", "a.png", "small.png", "--resize", "--json").out)
    assert (found["resized"], found["width"], found["height"]) == (True, 48, 40)
    assert 15 < found["psnr"] < 40


def test_a_picture_side_by_side(pmavae: Command, pair: Path) -> None:
    result = pmavae("compare", "a.png", "b.png", "-o", "c.png", "--gain", "10", "--json")
    assert json.loads(result.out)["output"] == "c.png"
    sheet = np.asarray(Image.open("c.png"))
    assert sheet.shape == (40, 3 * 48 + 16, 3)
    assert (sheet[:, :48] == np.asarray(Image.open("a.png"))).all()
    assert (sheet[:, 56:104] == np.asarray(Image.open("b.png"))).all()
    assert (sheet[:, 112:] == (40, 0, 10)).all()


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_needs_nothing_but_itself(pmavae: Command, pair: Path) -> None:
    name = "<script>alert(1)<script> & 'ü'.png"
    Path("b.png").rename(name)
    assert pmavae("compare", "a.png", name, "-o", "c.html").status == 0
    text = Path("c.html").read_text("utf-8")
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert (tags.count("script"), tags.count("img"), tags.count("input")) == (1, 3, 1)
    assert name in page.text and "40.60" in page.text
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    decoded = [Image.open(io.BytesIO(b64decode(source.split(",", 1)[1]))) for source in images]
    assert (np.asarray(decoded[0]) == np.asarray(Image.open("a.png"))).all()
    assert (np.asarray(decoded[1]) == np.asarray(Image.open(name))).all()
    assert (np.asarray(decoded[2]) == (32, 0, 8)).all()
    assert all(source.startswith("data:image/png;base64,") for source in images)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    assert "default-src 'none'" in text


@pytest.mark.skipif(os.name == "nt", reason="names there are text")
def test_a_name_that_is_no_text(pmavae: Command, pair: Path) -> None:
    name = os.fsdecode(b"b\xff.png")
    Path("b.png").rename(name)
    assert pmavae("compare", "a.png", name, "-o", "c.html").status == 0
    assert "B: b?.png" in Path("c.html").read_text("utf-8")
    assert pmavae("compare", "a.png", name, "--json").status == 0


def test_large_pictures_are_shown_smaller(
    pmavae: Command, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_PIXELS", 1000)
    result = pmavae("compare", "a.png", "b.png", "-o", "c.png")
    assert (result.status, result.lines[1].split()[-1]) == (0, "40.60")
    assert "are shown at" in result.err
    width, height = Image.open("c.png").size
    assert width * height <= 1200


def test_outputs_are_refused_before_anything_is_read(pmavae: Command, pair: Path) -> None:
    Path("c.png").write_bytes(b"mine")
    Path("folder.png").mkdir()
    before = Path("a.png").read_bytes()
    for output, status, words in (
        ("c.png", 2, "c.png exists: use --overwrite"),
        ("a.png", 2, "a.png would replace the input a.png"),
        ("./b.png", 2, "would replace the input b.png"),
        ("c.jpg", 2, "c.jpg has none of the suffixes .png and .html"),
        ("folder.png", 2, "folder.png is a folder"),
        ("gone/c.png", 2, "there is no folder gone; make it first"),
        ("c" * 300 + ".png", 2, "cannot be written: File name too long; give another -o"),
    ):
        result = pmavae("compare", "a.png", "b.png", "-o", output)
        assert (result.status, result.out) == (status, b""), output
        assert words in result.err, output
    assert pmavae("compare", "a.png", "b.png", "-o", "a.png", "--overwrite").status == 2
    assert (Path("c.png").read_bytes(), Path("a.png").read_bytes()) == (b"mine", before)
    assert pmavae("compare", "a.png", "b.png", "-o", "c.png", "--overwrite").status == 0
    assert Image.open("c.png").size == (160, 40)


def test_nothing_is_half_written(pmavae: Command, pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("c.png").write_bytes(b"mine")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = pmavae("compare", "a.png", "b.png", "-o", "c.png", "--overwrite")
    assert (result.status, result.out) == (1, b"")
    assert result.err == "pmavae: c.png cannot be written: No space left on device\n"
    assert sorted(path.name for path in pair.iterdir()) == ["a.png", "b.png", "c.png"]
    assert Path("c.png").read_bytes() == b"mine"


def test_bad_inputs_are_one_sentence(pmavae: Command, pair: Path) -> None:
    Path("bad.png").write_bytes(Path("a.png").read_bytes()[:200])
    Path("text.png").write_text("no picture, but long enough to be one")
    for name, words in (
        ("gone.png", "gone.png does not exist"),
        ("bad.png", "bad.png is damaged or truncated"),
        ("text.png", "text.png is neither a picture"),
        (".", ". is a folder: B must be one picture or latent file"),
    ):
        result = pmavae("compare", "a.png", name)
        assert (result.status, result.out) == (1, b""), name
        assert result.err.startswith(f"pmavae: {words}") and result.err.count("\n") == 1
    assert pmavae("compare", "a.png").status == 2
    assert pmavae("compare", "-", "-").status == 2
    assert pmavae("compare", "a.png", "b.png", "--gain", "0").status == 2


def test_stdin(pmavae: Command, pair: Path) -> None:
    result = pmavae("compare", "a.png", "-", "--json", stdin=Path("b.png").read_bytes())
    assert json.loads(result.out)["mean_shift"]["red"] == 4


def test_colours_are_compared_in_srgb(pmavae: Command, pair: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    red, green, blue = Image.open("a.png").split()
    Image.merge("RGB", (blue, green, red)).save("c.png", icc_profile=swapped)
    found = json.loads(pmavae("compare", "a.png", "c.png", "--json").out)
    assert max(found["largest_difference"].values()) <= 2
