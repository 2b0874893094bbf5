"""A picture in the colours of others: the start of refining, smooth and without strokes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOOR = 1e-4  # variance of a colour axis that does not vary


def recolour(picture: Tensor, styles: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The picture (1, 3, H, W) with the mean and covariance of the colours of the styles, in [0, 1].

    styles: pictures (1, 3, h, w) and their weights, which sum to 1. The linear map between two normal
    distributions that moves colours least (Pitié & Kokaram, 2007).
    """
    mean, covariance = _statistics([(picture, 1.0)])
    mean_wanted, wanted = _statistics(styles)
    root = _root(covariance)
    inverse = torch.linalg.inv(root)
    matrix = inverse @ _root(root @ wanted @ root) @ inverse
    moved = torch.einsum("ij,bjhw->bihw", matrix.float(), picture - mean.float()[:, None, None])
    return (moved + mean_wanted.float()[:, None, None]).clamp(0, 1)


def _statistics(pictures: Sequence[tuple[Tensor, float]]) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of the colours of a mixture, in float64."""
    colours = [(picture[0].flatten(1).double(), weight) for picture, weight in pictures]
    mean = torch.stack([weight * x.mean(1) for x, weight in colours]).sum(0)
    moments = [weight * (x @ x.T) / x.shape[1] for x, weight in colours]
    covariance = torch.stack(moments).sum(0) - mean[:, None] * mean
    return mean, covariance + FLOOR * torch.eye(3, dtype=torch.float64, device=mean.device)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
