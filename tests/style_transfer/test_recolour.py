"""Pictures with the colours or the detail of another, and the sheet that shows many."""

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ImageFont

from pmavae import PMAVAE, PRESETS
from pmavae.images.contact_sheet import Heading, contact_sheet, shortened
from pmavae.images.pixels import CELL_SIDE
from pmavae.style_transfer.repainting import Keep, repaint, with_chroma_of, with_detail_of, without_chroma

pictures = arrays(np.uint8, (20, 17, 3))


def ycbcr(pixels):
    """BT.601, full range, unrounded."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float64
    )
    return pixels.astype(np.float64) @ matrix.T


@settings(max_examples=100, deadline=None)
@given(pictures, pictures)
def test_luma_stays_and_chroma_is_the_others_or_paler(painted, content):
    mixed, wanted, luma = ycbcr(with_chroma_of(painted, content)), ycbcr(content), ycbcr(painted)[..., 0]
    assert np.abs(mixed[..., 0] - luma).max() <= 0.6
    size, room = (np.hypot(z[..., 1], z[..., 2]) for z in (mixed, wanted))
    assert (size <= room + 1).all()
    # The same hue: the cross product of both, over the length of the wanted one, is how far it turned.
    turned = mixed[..., 1] * wanted[..., 2] - mixed[..., 2] * wanted[..., 1]
    assert np.abs(turned / np.maximum(room, 1)).max() <= 1


def test_chroma_is_exact_where_a_colour_has_both():
    content, painted = (np.asarray(picture((300, 280), seed)) // 4 + 96 for seed in (0, 1))
    content, painted = content.astype(np.uint8), painted.astype(np.uint8)
    mixed = ycbcr(with_chroma_of(painted, content))
    assert np.abs(mixed[..., 1:] - ycbcr(content)[..., 1:]).max() <= 0.6
    assert np.abs(mixed[..., 0] - ycbcr(painted)[..., 0]).max() <= 0.6


@settings(max_examples=30, deadline=None)
@given(pictures)
def test_a_picture_keeps_its_own(pixels):
    assert np.array_equal(with_chroma_of(pixels, pixels), pixels)
    assert np.array_equal(with_detail_of(pixels, pixels, 1), pixels)


def test_detail_is_the_others_and_what_is_coarse_stays():
    y, x = np.mgrid[0:64, 0:80]
    checks = 20.0 * ((x + y) % 2 * 2 - 1)  # nothing but detail
    hills = 30 * np.sin(x / 20)  # nothing else
    smooth, other = 128 + hills, 100 + hills + checks
    painted, detailed = (np.repeat(v[..., None].round(), 3, 2).astype(np.uint8) for v in (smooth, other))
    full, half = (with_detail_of(painted, detailed, p)[8:-8, 8:-8, 0].astype(float) for p in (1, 0.5))
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(full - (smooth + checks)[inner]).max() < 2
    assert np.abs(half - (smooth + checks / 2)[inner]).max() < 2
    assert with_detail_of(painted, detailed, 0) is painted


def test_strips_leave_no_trace(monkeypatch):
    painted, content = (np.asarray(picture((60, 100), seed)) for seed in (0, 1))
    whole = with_chroma_of(painted, content), with_detail_of(painted, content, 0.8)
    monkeypatch.setattr("pmavae.images.pixels.STRIP", 5)
    assert np.array_equal(with_chroma_of(painted, content), whole[0])
    assert np.abs(with_detail_of(painted, content, 0.8).astype(int) - whole[1]).max() == 0


def test_pictures_of_two_sizes_are_refused():
    one, two = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 21, 3), np.uint8)
    for combine in (with_chroma_of, lambda a, b: with_detail_of(a, b, 0.5)):
        with pytest.raises(ValueError, match="two sizes"):
            combine(one, two)
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        with_detail_of(one, one, 1.5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return PMAVAE(PRESETS["tiny"]).eval()


def test_repainting(model):
    content, style = model.encode(picture()), model.encode(picture((64, 64), 3)).z_style
    plain = model.decode_pixels(content)
    styles = [(style, 1.0)]
    for keep in (None, Keep(color=True), Keep(detail=1.0)):
        assert np.array_equal(repaint(model, content, styles, 0.0, keep), plain)
    painted = repaint(model, content, styles)
    assert np.abs(painted.astype(float) - plain).mean() > 1
    both = Keep(color=True, detail=0.5)
    coloured = repaint(model, content, styles, keep=both)
    assert np.array_equal(coloured, repaint(model, content, styles, keep=both, plain=plain))
    assert np.array_equal(
        repaint(model, content, styles, keep=Keep(color=True)), with_chroma_of(painted, plain)
    )
    grey = repaint(model, content, styles, keep=Keep(color=True, grey=True))
    assert np.array_equal(grey, without_chroma(painted))
    assert (grey[..., :1] == grey).all()


def flat(value, height=40, width=60):
    return np.full((height, width, 3), value, np.uint8)


def corner(mask):
    """Row and column where a picture of flat() begins; letters may have single pixels of its value."""
    return np.argmax(mask.sum(1) >= 60), np.argmax(mask.sum(0) >= 40)


def test_a_sheet_has_every_picture_in_its_place():
    asked = []

    def cell(row, column):
        asked.append((row, column))
        return flat(100 + 40 * row + 20 * column)

    columns = [Heading("one", flat(10)), Heading("two", flat(20))]
    sheet = contact_sheet(columns, [Heading("first", flat(30)), Heading("second")], cell)
    assert asked == [(0, 0), (0, 1), (1, 0), (1, 1)]
    counts = {value: int((sheet == value).all(-1).sum()) for value in (10, 20, 30, 100, 120, 140, 160)}
    assert all(count >= 40 * 60 for count in counts.values()), counts
    shown = (10, 20, 30, 100, 120, 140)
    places = {value: corner((sheet == value).all(-1)) for value in shown}
    assert places[10][0] == places[20][0] < places[30][0] == places[100][0] == places[120][0] < places[140][0]
    assert places[30][1] < places[10][1] == places[100][1] == places[140][1] < places[20][1]


def test_a_sheet_has_its_names():
    def sheet(*names):
        return contact_sheet([Heading(names[0], flat(0))], [Heading(names[1])], lambda r, c: flat(0))

    nothing = sheet("", "")
    for changed in (sheet("a", ""), sheet("", "b")):
        assert changed.shape == nothing.shape
        rows, columns = np.nonzero((changed != nothing).any(-1))
        assert len(rows) > 5
    rows, columns = np.nonzero((sheet("a", "") != nothing).any(-1))
    assert rows.max() < nothing.shape[0] / 2 < nothing.shape[1] and columns.min() > nothing.shape[1] / 2


@given(st.text(max_size=300), st.floats(5, 300))
@settings(max_examples=100, deadline=None)
def test_any_name_fits(name, width):
    font = ImageFont.load_default(12)
    text = shortened(name, width, font)
    assert "\n" not in text
    assert font.getlength(text) <= max(width, font.getlength("…"))
    if font.getlength(name) <= width and name.isprintable():
        assert text == name


def test_names_of_any_bytes_can_be_drawn():
    contact_sheet([Heading("caf\udce9 🎨 画\n", flat(0))], [Heading("é")], lambda r, c: flat(0))


def test_large_pictures_are_shrunk_and_too_many_refused():
    wide = flat(9, 100, 1000)
    sheet = contact_sheet([Heading("a", wide)], [Heading("b", wide)], lambda r, c: wide)
    assert 2 * CELL_SIDE < sheet.shape[1] < 2 * CELL_SIDE + 50
    many = [Heading("a", flat(0, 48, 48))] * 400
    with pytest.raises(ValueError, match="400 × 1 pictures is too large"):
        contact_sheet(many, [Heading("b")], lambda r, c: flat(0))
