"""What training minimises: distances that are zero for the same and grow with the difference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmavae.images.metrics import feature_distance
from pmavae.style_transfer.distances import (
    content_distance,
    gram,
    gram_distance,
    moment_distance,
    moments,
    octaves,
    sliced_wasserstein,
)
from pmavae.training.losses import (
    PatchDiscriminator,
    balance,
    discriminator_loss,
    edge_loss,
    generator_loss,
    kl_per_channel,
)
from pmavae.training.objectives.reconstruction import grid_share

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_distances_are_zero_for_the_same_and_grow_with_the_difference():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 64, 64)
    near, far = picture + 0.01, picture**3
    features = [
        [torch.nn.functional.avg_pool2d(x, s) - 0.4 for s in (1, 2, 4, 4, 8, 8)] for x in (picture, near, far)
    ]
    of_first = features[0]
    for distance, wanted in (
        (gram_distance, [gram(x) for x in of_first]),
        (moment_distance, [moments(x) for x in of_first]),
        (feature_distance, of_first),
    ):
        values = [float(distance(f, wanted)) for f in features]
        assert values[0] == pytest.approx(0, abs=1e-6) and values[1] < values[2]
    assert float(content_distance(features[1], features[0], (3, 5))) == pytest.approx(0, abs=1e-4)
    assert float(content_distance(features[2], features[0], (3, 5))) > 1e-3
    assert float(edge_loss(picture, picture)) == 0 and float(edge_loss(far, picture)) > 0


def test_sliced_wasserstein_ignores_where_things_are_and_sees_what_they_are():
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def distance(a, b):
        return sliced_wasserstein(a, [(octaves(b), 1.0)], torch.Generator().manual_seed(1))

    elsewhere, darker = (distance(picture, x) for x in (picture.flip(-1).roll(13, -2), picture * 0.5))
    assert all(near < 0.5 * far for near, far in zip(elsewhere, darker, strict=True))


def test_kl_of_a_standard_normal_is_zero():
    mean, logvar = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    assert torch.equal(kl_per_channel(mean, logvar), torch.zeros(3))
    assert (kl_per_channel(mean + 1, logvar) == 0.5).all()


def test_a_grid_is_seen_and_a_photograph_is_not():
    photo = Image.open(EXAMPLES / "content-ridge.jpg").convert("RGB").resize((256, 192))
    picture = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
    assert grid_share(picture) < 0.03
    tile = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 12, 16)
    assert grid_share(tile) > 0.9
    assert grid_share(picture + 0.3 * tile) > 0.3


def test_a_discriminator_learns_to_tell_and_gives_no_gradient_to_what_it_judges():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(4)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.02)
    real = torch.rand(4, 3, 32, 32)
    fake = real.mean((2, 3), keepdim=True).expand_as(real).clone().requires_grad_()
    first = float(discriminator_loss(discriminator, real, fake).detach())
    for _ in range(60):
        optimizer.zero_grad()
        discriminator_loss(discriminator, real, fake).backward()
        optimizer.step()
    assert float(discriminator_loss(discriminator, real, fake).detach()) < 0.7 * first
    assert fake.grad is None
    assert discriminator(real).shape == (4, 1, 4, 4)


def test_the_adversarial_gradient_is_balanced_in_the_last_layer():
    torch.manual_seed(0)
    last = torch.nn.Conv2d(3, 3, 1)
    output = last(torch.rand(2, 3, 32, 32))
    loss, adversarial = output.abs().mean(), 7 * generator_loss(PatchDiscriminator(4), output)
    times = balance(loss, adversarial, last.weight)
    gradients = [
        torch.autograd.grad(x, last.weight, retain_graph=True)[0].norm() for x in (loss, times * adversarial)
    ]
    assert float(gradients[1]) == pytest.approx(float(gradients[0]), rel=1e-3)
