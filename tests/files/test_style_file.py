"""Styles by themselves: in a file, and from a picture of any size."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as safetensors_save
from small_config import CONFIG

from pmavae import PMAVAE, Latents, Style
from pmavae.errors import LatentFileError
from pmavae.files.latent_file import (
    LatentHeader,
    latents_to_bytes,
    read_latents,
    read_latents_or_style,
    write_latents,
)
from pmavae.images.pixels import STYLE_SIDE, fit_side, style_view
from pmavae.latents import expected_shapes, mix_style
from pmavae.style_transfer.repainting import repaint

GOLDEN = Path(__file__).parents[1] / "golden" / "style-v1.safetensors"
EXAMPLES = Path(__file__).parents[2] / "examples"
HEADER = LatentHeader("test", "test-1", "0123456789abcdef" * 4)
config_for = {"test": CONFIG}.__getitem__


def make_style(seed=0, width=512, height=341):
    values = torch.randn(1, CONFIG.style_channels, 1, 1, generator=torch.Generator().manual_seed(seed))
    return Style(values, width=width, height=height)


@pytest.fixture(scope="module")
def model():
    return PMAVAE.from_pretrained("tiny")


def encode_style(model, image, scale):
    view = style_view(image, scale)
    return Style(model.encode(view).z_style, width=view.shape[1], height=view.shape[0])


def test_the_format_is_pinned():
    style, header = read_latents_or_style(GOLDEN, config_for)
    assert header == HEADER
    assert (style.width, style.height) == (512, 341)
    assert style.z_style.flatten().tolist() == [n / 8 for n in range(-8, 8)]
    assert latents_to_bytes(style, header) == GOLDEN.read_bytes()
    assert GOLDEN.stat().st_size < 1000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_round_trip(tmp_path, dtype):
    style = make_style()
    write_latents(tmp_path / "s.safetensors", style, HEADER, dtype)
    back, header = read_latents_or_style(tmp_path / "s.safetensors", config_for)
    assert header == HEADER
    assert (back.width, back.height) == (style.width, style.height)
    assert back.z_style.shape == (1, 16, 1, 1)
    assert torch.equal(back.z_style, style.z_style.to(dtype).float())


@settings(max_examples=50, deadline=None)
@given(st.integers(16, 2**20), st.integers(16, 2**20), st.integers(0, 2**32))
def test_every_style_comes_back(width, height, seed):
    style = make_style(seed, width, height)
    back, _ = read_latents_or_style(latents_to_bytes(style, HEADER, torch.float32), config_for)
    assert (back.width, back.height) == (width, height)
    assert torch.equal(back.z_style, style.z_style)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_byte_is_refused_or_harmless(data):
    intact = latents_to_bytes(make_style(), HEADER)
    changed = bytearray(intact)
    changed[data.draw(st.integers(0, len(intact) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        style, header = read_latents_or_style(bytes(changed), config_for, name="s.safetensors")
    except LatentFileError as error:
        assert "s.safetensors" in str(error)
    else:
        assert header == HEADER
        assert torch.equal(style.z_style, read_latents_or_style(intact, config_for)[0].z_style)


def test_a_latent_file_has_a_style_as_well():
    tensors = {n: torch.rand(1, *s) for n, s in expected_shapes(CONFIG, 20, 33).items()}
    latents = Latents(height=20, width=33, **tensors)
    style, _ = read_latents_or_style(latents_to_bytes(latents, HEADER, torch.float32), config_for)
    assert torch.equal(style.z_style, latents.z_style)
    assert (style.width, style.height) == (33, 20)


def test_a_style_is_no_picture():
    with pytest.raises(LatentFileError) as caught:
        read_latents(latents_to_bytes(make_style(), HEADER), config_for, name="s.safetensors")
    assert str(caught.value).startswith(
        "s.safetensors holds a style and no picture: give it to pmavae style-mix"
    )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"z_style": torch.zeros(15, 1, 1)}, "z_style has the shape (15, 1, 1)"),
        ({"z_style": torch.full((16, 1, 1), torch.nan)}, "z_style has values that are not finite"),
        ({"z_style": torch.zeros(16, 1, 1), "z_base": torch.zeros(4, 22, 32)}, "'z_detail' is missing"),
        ({"z_base": torch.zeros(4, 22, 32)}, "is missing"),
    ],
)
def test_wrong_tensors_are_refused(tensors, message):
    fields = {"format": "latent", "version": 1, "preset": "test", "weights_id": "t", "weights_sha256": ""}
    fields |= {"width": 512, "height": 341, "padding": [0, 0, 0, 11], "picture": {}}
    with pytest.raises(LatentFileError) as caught:
        read_latents_or_style(
            safetensors_save(tensors, {"pmavae": json.dumps(fields)}), config_for, name="s.safetensors"
        )
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((1000, 500), 1, (512, 256)),
        ((30, 60), 1, (256, 512)),
        ((512, 384), 1, (512, 384)),
        ((600, 300), 4, (2048, 1024)),
        ((600, 300), 0.25, (128, 64)),
        ((4000, 17), 1, (512, 16)),
    ],
)
def test_a_style_picture_is_read_at_one_size(size, scale, expected):
    view = style_view(picture(size), scale)
    assert (view.shape[1], view.shape[0]) == expected
    assert np.array_equal(view, style_view(np.asarray(picture(size)), scale))


def test_a_picture_of_the_right_size_is_not_touched():
    pixels = np.asarray(picture((STYLE_SIDE, 300)))
    assert np.array_equal(fit_side(pixels, STYLE_SIDE), pixels)


def test_the_brush_does_not_depend_on_the_size_of_the_file(model):
    """A painting and its enlargement are one style; another painting is another."""
    with Image.open(EXAMPLES / "style-starry-night.jpg") as image:
        small = image.convert("RGB").resize((384, 304), Image.Resampling.LANCZOS)
    large = small.resize((768, 608), Image.Resampling.LANCZOS)
    with Image.open(EXAMPLES / "style-hollyhocks.jpg") as image:
        other = encode_style(model, image.convert("RGB"), 0.5).z_style
    one, two = (encode_style(model, image, 0.5).z_style for image in (small, large))
    assert (one - two).norm() < 0.1 * (one - other).norm()
    content = model.encode(picture((96, 80)))
    pictures = [repaint(model, content, [(style, 1.0)]).astype(float) for style in (one, two, other)]
    difference = np.abs(pictures[0] - pictures[1]).mean()
    assert difference < 2
    assert difference < 0.1 * np.abs(pictures[0] - pictures[2]).mean()


def test_scale_changes_the_style(model):
    image = picture((256, 200))
    sizes = [encode_style(model, image, scale) for scale in (0.25, 0.5)]
    assert [style.width for style in sizes] == [128, 256]
    assert not torch.allclose(sizes[0].z_style, sizes[1].z_style, atol=1e-2)


def test_mixing_two_styles_has_no_jumps(model):
    """Eleven steps from one style to another: none changes the mean colour much more than those beside it."""
    styles = []
    for name in ("style-starry-night", "style-orange-trees"):
        with Image.open(EXAMPLES / f"{name}.jpg") as image:
            styles.append(encode_style(model, image.convert("RGB"), 0.25).z_style)
    content = model.encode(picture((96, 80)))
    means = []
    for step in range(11):
        weights = [(styles[0], 10 - step), (styles[1], step)]
        painted = model.decode(content.replace(z_style=mix_style(content.z_style, weights)))
        means.append(painted.mean((0, 2, 3)) * 255)
    steps = [(b - a).norm().item() for a, b in pairwise(means)]
    assert sum(steps) > 10  # the styles do differ
    for i, step in enumerate(steps):
        beside = max(steps[max(i - 1, 0) : i] + steps[i + 1 : i + 2])
        assert step <= 2 * beside + 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-300, 1e308), min_size=1, max_size=5))
def test_weights_of_any_size_sum_to_one(weights):
    content, style = torch.zeros(1, 16, 1, 1), make_style().z_style
    mixed = mix_style(content, [(style, weight) for weight in weights])
    torch.testing.assert_close(mixed[:, :-1], style[:, :-1])
