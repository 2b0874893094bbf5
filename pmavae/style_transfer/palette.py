"""A picture in the colours of others: the start of refining, smooth and without strokes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-4  # variance of a colour axis that does not vary


@dataclass(frozen=True)
class Colours:
    """First and second moments of the colours of a picture, or of a mixture of pictures, in float64."""

    mean: Tensor  # (3,)
    squares: Tensor  # (3, 3)

    @classmethod
    def of(cls, strips: Iterable[Tensor]) -> Colours:
        """Of a picture in strips of rows, (1, 3, h, W) each."""
        count, total, squares = 0, torch.zeros(3), torch.zeros(3, 3)
        for strip in strips:
            x = strip[0].flatten(1).double()
            count, total, squares = count + x.shape[1], total.to(x) + x.sum(1), squares.to(x) + x @ x.T
        return cls(total / count, squares / count)

    @classmethod
    def mixed(cls, parts: Sequence[tuple[Colours, float]]) -> Colours:
        """By weights that sum to 1."""
        return cls(
            torch.stack([weight * part.mean for part, weight in parts]).sum(0),
            torch.stack([weight * part.squares for part, weight in parts]).sum(0),
        )

    def covariance(self) -> Tensor:
        """(3, 3), of colours that all vary a little."""
        eye = torch.eye(3, dtype=torch.float64, device=self.mean.device)
        return self.squares - self.mean[:, None] * self.mean + FLOOR * eye


def recolour(picture: Tensor, styles: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The picture (1, 3, H, W) with the mean and covariance of the colours of the styles, in [0, 1].

    styles: pictures (1, 3, h, w) and their weights, which sum to 1.
    """
    wanted = Colours.mixed([(Colours.of([style]), weight) for style, weight in styles])
    return recolouring(Colours.of([picture]), wanted)(picture)


def recolouring(own: Colours, wanted: Colours) -> Callable[[Tensor], Tensor]:
    """What gives (1, 3, h, W) of a picture with its own colours those that are wanted, in [0, 1].

    The linear map between two normal distributions that moves colours least (Pitié & Kokaram, 2007).
    """
    root = _root(own.covariance())
    inverse = torch.linalg.inv(root)
    matrix = (inverse @ _root(root @ wanted.covariance() @ root) @ inverse).float()
    before, after = (mean.float()[:, None, None] for mean in (own.mean, wanted.mean))

    def moved(x: Tensor) -> Tensor:
        return (torch.einsum("ij,bjhw->bihw", matrix, x - before) + after).clamp(0, 1)

    return moved


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
