"""A codec without training: PCA into the encoder's shortcuts, least squares into the decoder's.

z_detail gets the principal components of 8×8 blocks, z_base those of what is then left of 16×16
blocks, all scaled to unit variance. The decoder's overlapping windows are fitted to undo them by
least squares on training crops. The network on top starts at zero and learns what is not linear.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmavae.autoencoder import PMAVAE
from pmavae.config import BASE_STRIDE, DETAIL_STRIDE
from pmavae.training.dataset import Corpus

CROP = 256  # px, of the crops that are fitted


def _principal_components(blocks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of (n, d) rows: components (count, d) and the standard deviations along them (count,)."""
    second_moment = blocks.T @ blocks / len(blocks)
    values, vectors = torch.linalg.eigh(second_moment.double())
    order = values.argsort(descending=True)[:count]
    return vectors[:, order].T.float(), values[order].clamp(min=1e-12).sqrt().float()


def _blocks(pictures: Tensor, stride: int) -> Tensor:
    return F.pixel_unshuffle(pictures, stride).permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def fit_encoder(model: PMAVAE, pictures: Tensor) -> None:
    """Set the encoder's linear shortcuts from pictures (n, 3, H, W) in [0, 1], H and W in 16s."""
    config, centred = model.config, pictures - 0.5
    detail, detail_scale = _principal_components(_blocks(centred, DETAIL_STRIDE), config.detail_channels)

    def without_detail(x: Tensor) -> Tensor:
        z = F.conv2d(F.pixel_unshuffle(x, DETAIL_STRIDE), detail[:, :, None, None])
        return x - F.pixel_shuffle(F.conv2d(z, detail.T[:, :, None, None]), DETAIL_STRIDE)

    residual = torch.cat([without_detail(x) for x in centred.split(64)])
    base, base_scale = _principal_components(_blocks(residual, BASE_STRIDE), config.base_channels)
    # One linear map of the whole 16×16 block: the components see it without its 8×8 detail.
    base = _blocks(without_detail(F.pixel_shuffle(base[:, :, None, None], BASE_STRIDE)), BASE_STRIDE)
    for layer, rows, scale in (
        (model.encoder.linear_detail[1], detail, detail_scale),
        (model.encoder.linear_base[1], base, base_scale),
    ):
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        layer.weight.copy_((rows / scale[:, None])[:, :, None, None])
        layer.bias.zero_()


def fit_decoder(model: PMAVAE, pictures: Tensor, iterations: int = 40, chunk: int = 16) -> float:
    """Fit the lapped maps by conjugate gradients on the normal equations.

    pictures: (n, 3, H, W) in [0, 1]. Returns the mean squared error that is left.
    """
    lapped = (model.decoder.lapped_base, model.decoder.lapped_detail)
    weights = [layer.weight for layer in lapped]
    with torch.no_grad():
        chunks = [
            (model.encoder.linear_base(x), model.encoder.linear_detail(x), x)
            for x in (pictures - 0.5).split(chunk)
        ]

    def gradient(values: list[Tensor], target: float) -> tuple[list[Tensor], float]:
        """Of half the mean squared error between the maps and `target` times the pictures."""
        with torch.no_grad():
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)
        total, error = [torch.zeros_like(w) for w in weights], 0.0
        for z_base, z_detail, picture in chunks:
            difference = lapped[0](z_base) + lapped[1](z_detail) - target * picture
            loss = 0.5 * difference.square().sum() / pictures.numel()
            error += 2 * loss.item()
            total = [t + g for t, g in zip(total, torch.autograd.grad(loss, weights), strict=True)]
        return total, error

    def dot(a: list[Tensor], b: list[Tensor]) -> float:
        return sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))

    solution = [torch.zeros_like(w) for w in weights]
    residual = [-g for g in gradient(solution, target=1.0)[0]]
    direction, norm = residual, dot(residual, residual)
    for _ in range(iterations):
        curvature, _unused = gradient(direction, target=0.0)
        step = norm / dot(direction, curvature)
        solution = [s + step * d for s, d in zip(solution, direction, strict=True)]
        residual = [r - step * c for r, c in zip(residual, curvature, strict=True)]
        norm, previous = dot(residual, residual), norm
        direction = [r + norm / previous * d for r, d in zip(residual, direction, strict=True)]
    return gradient(solution, target=1.0)[1]


def linear_start(model: PMAVAE, corpus: Corpus, crops: int) -> float:
    """Fit the linear maps of a new model to crops of a corpus; returns the mean squared error."""
    size = min(CROP, corpus.largest_crop)
    pictures = torch.cat([corpus.batch(min(16, crops), size, seed=1, step=i) for i in range(-(-crops // 16))])
    fit_encoder(model, pictures)
    return fit_decoder(model, pictures[: -(-len(pictures) // 2)])
