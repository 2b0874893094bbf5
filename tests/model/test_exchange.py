"""The exchange of coarse and fine halves between z_base and z_detail."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pmavae.latents import exchange, exchange_variances


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(1, 4), st.integers(1, 4))
def test_it_is_its_own_inverse(channels, more, height, width):
    generator = torch.Generator().manual_seed(channels)
    base = torch.randn(2, channels + more, height, width, generator=generator, dtype=torch.float64)
    detail = torch.randn(2, channels, 2 * height, 2 * width, generator=generator, dtype=torch.float64)
    again = exchange(*exchange(base, detail))
    torch.testing.assert_close(again[0], base)
    torch.testing.assert_close(again[1], detail)


def test_the_base_gets_the_means_and_the_detail_keeps_what_varies():
    base, detail = torch.zeros(1, 3, 2, 2), torch.full((1, 2, 4, 4), 5.0)
    coarse, fine = exchange(base, detail)
    assert (coarse[:, :2] == 5).all() and (coarse[:, 2:] == 0).all() and (fine == 0).all()


def test_variances_are_those_of_exchanged_noise():
    generator = torch.Generator().manual_seed(0)
    variances = torch.tensor([0.5, 1.0, 2.0, 4.0]).reshape(1, 1, 2, 2)
    count = 200_000
    base = 1.5 * torch.randn(count, 2, 1, 1, generator=generator)
    detail = variances.sqrt() * torch.randn(count, 1, 2, 2, generator=generator)
    got = exchange(base, detail)
    expected = exchange_variances(torch.full((1, 2, 1, 1), 2.25), variances)
    for samples, variance in zip(got, expected, strict=True):
        torch.testing.assert_close(samples.var(0), variance[0], rtol=0.03, atol=0)
