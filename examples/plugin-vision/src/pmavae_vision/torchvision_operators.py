"""Importing torchvision where its compiled library does not load.

torchvision has a library for each build of torch: with another one, such as that for the CPU beside a
torchvision for CUDA, `import torchvision` ends with "operator torchvision::nms does not exist". What
Mask R-CNN and timm need of that library are two operators, and here they are in plain torch: slower, and
the same. Nothing is done where the library loads.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, library

from pmavae.errors import PMAVAEError

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
_libraries: list[library.Library] = []  # operators are gone when their library is


class MissingPackageError(PMAVAEError):
    """A package that a task of this plugin needs is not installed."""


def import_torchvision() -> ModuleType:
    """torchvision, whatever its build. Raises MissingPackageError where there is none."""
    if "torchvision" not in sys.modules:
        spec = find_spec("torchvision")
        if spec is None or not spec.submodule_search_locations:
            raise MissingPackageError("torchvision is not installed: pip install torchvision")
        if not _library_loads(Path(next(iter(spec.submodule_search_locations)))):
            _define()
    module = importlib.import_module("torchvision")
    if _libraries:
        # Both ask, before they call an operator, whether the library was loaded.
        for name in ("torchvision.extension", "torchvision.ops.roi_align"):
            vars(importlib.import_module(name))["_has_ops"] = lambda: True
    return module


def _library_loads(package: Path) -> bool:
    for compiled in sorted(package.glob("_C.*")):
        try:
            torch.ops.load_library(compiled)
        except (OSError, ImportError):
            continue
        return True
    return False


def _define() -> None:
    made = library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        made.define(schema)
    for kind in ("CPU", "CUDA", "MPS"):
        made.impl("nms", nms, kind)
    # Made of differentiable parts, so that autograd needs nothing else.
    made.impl("roi_align", roi_align, "CompositeImplicitAutograd")
    _libraries.append(made)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Which of (N, 4) boxes, x1 y1 x2 y2, overlap none with a higher score by more than the threshold.

    Indices, (K,) int64, by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].detach().float().cpu().numpy().T
    areas = (x2 - x1) * (y2 - y1)
    left, kept = np.arange(len(order)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        width = np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left])
        height = np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left])
        shared = width.clip(0) * height.clip(0)
        # Not a quotient: two empty boxes overlap by nothing.
        left = left[shared <= iou_threshold * (areas[best] + areas[left] - shared)]
    return order[torch.as_tensor(np.array(kept, dtype=np.int64), device=order.device)]


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Means of bilinear samples in a grid of each region (Mask R-CNN, arXiv 1703.06870).

    input: (N, C, H, W). rois: (K, 5), the number of the picture, x1 y1 x2 y2. sampling_ratio: samples a side
    of each cell; 0 or below for as many as it has pixels. aligned: whether pixel centres lie at 0.5.
    Returns (K, C, pooled_height, pooled_width).
    """
    batch, channels, height, width = input.shape
    count = len(rois)
    corners = rois[:, 1:].float() * spatial_scale - (0.5 if aligned else 0.0)
    sides = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sides = sides.clamp(min=1.0)
    y, weight_y = _samples(corners[:, 1], sides[:, 1], pooled_height, sampling_ratio, height)
    x, weight_x = _samples(corners[:, 0], sides[:, 0], pooled_width, sampling_ratio, width)
    # (K, pooled_height, pooled_width, samples): where each lies among all positions, and what it counts.
    first = rois[:, 0].long().view(-1, 1, 1, 1, 1) * (height * width)
    places = first + y[:, :, None, :, None] * width + x[:, None, :, None, :]
    weights = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
    rows = input.permute(0, 2, 3, 1).reshape(batch * height * width, channels).float()
    cells = count * pooled_height * pooled_width
    if cells == 0:
        return (rows.sum() * 0).to(input.dtype) + input.new_zeros(
            count, channels, pooled_height, pooled_width
        )
    means = F.embedding_bag(
        places.reshape(cells, -1), rows, mode="sum", per_sample_weights=weights.reshape(cells, -1)
    )
    shape = (count, pooled_height, pooled_width, channels)
    return means.view(shape).permute(0, 3, 1, 2).to(input.dtype)


def _samples(
    start: Tensor, side: Tensor, cells: int, sampling_ratio: int, length: int
) -> tuple[Tensor, Tensor]:
    """Along one axis, (K, cells, 2 × samples): the neighbours of each sample, and their shares of a mean."""
    if sampling_ratio > 0:
        number = torch.full_like(side, sampling_ratio)
    else:
        number = (side / cells).ceil().clamp(min=1)
    most = int(number.max()) if len(number) else 1
    cell = torch.arange(cells, device=start.device)[None, :, None]
    sample = torch.arange(most, device=start.device)[None, None, :]
    of_roi = (slice(None), None, None)
    step = side / cells
    at = start[of_roi] + cell * step[of_roi] + (sample + 0.5) * (step / number)[of_roi]
    counts = (sample < number[of_roi]) & (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=length - 1)
    part = at - low
    share = counts / number[of_roi]
    return torch.cat([low, high], -1), torch.cat([(1 - part) * share, part * share], -1)
