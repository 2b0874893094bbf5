"""z_style: statistics out, statistics in, and mixing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae import PRESETS
from pmavae.latents import join_style, mix_style, normalise, restore, split_style, statistics

CONFIG = PRESETS["tiny"]


def random_style(seed):
    return torch.randn(1, CONFIG.style_channels, 1, 1, generator=torch.Generator().manual_seed(seed))


def encoded_style(seed):
    style = random_style(seed)
    style[:, -1] = 0
    return style


def test_restore_undoes_normalise():
    z = torch.randn(2, 6, 5, 7) * 3 + 2
    stats = statistics(z)
    torch.testing.assert_close(restore(normalise(z, stats), stats), z, atol=1e-4, rtol=1e-4)


def test_restoring_with_other_statistics_is_adain():
    content, style = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 9, 3) * 2 + 1
    moved = restore(normalise(content, statistics(content)), statistics(style))
    torch.testing.assert_close(statistics(moved), statistics(style), atol=2e-3, rtol=2e-3)


def test_flat_pictures_stay_finite():
    z = torch.full((1, 3, 4, 4), 0.7)
    assert torch.isfinite(normalise(z, statistics(z))).all()


def test_split_and_join_are_inverse():
    style = random_style(0)
    parts = split_style(style, CONFIG)
    assert [p.shape[1] for p in parts] == [48, 12, CONFIG.learned_channels, 1]
    torch.testing.assert_close(join_style(*parts), style)


def test_strength_zero_is_the_content_and_one_is_the_style_with_paint():
    content, style = encoded_style(1), encoded_style(2)
    assert torch.equal(mix_style(content, [(style, 1.0)], 0.0), content)
    full = mix_style(content, [(style, 1.0)], 1.0)
    torch.testing.assert_close(full[:, :-1], style[:, :-1])
    assert full[0, -1].item() == 1


@settings(max_examples=25)
@given(strength=st.floats(0, 1), weight=st.floats(0.01, 100))
def test_mixing_is_a_straight_line_and_weights_are_relative(strength, weight):
    content, one, two = encoded_style(1), encoded_style(2), encoded_style(3)
    mixed = mix_style(content, [(one, weight), (two, 3 * weight)], strength)
    expected = content + strength * (0.25 * one + 0.75 * two - content)
    torch.testing.assert_close(mixed[:, :-1], expected[:, :-1], atol=1e-5, rtol=1e-4)
    assert abs(mixed[0, -1].item() - strength) < 1e-6


@pytest.mark.parametrize(
    ("styles", "strength"), [([], 1.0), ([(random_style(0), -1.0)], 1.0), ([(random_style(0), 1.0)], 1.5)]
)
def test_unusable_mixes_are_refused(styles, strength):
    with pytest.raises(ValueError, match=r"strength|weights"):
        mix_style(random_style(1), styles, strength)
