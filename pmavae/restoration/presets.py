"""The released shapes of the restoration networks."""

from __future__ import annotations

from pmavae.restoration.config import RestorationConfig

TASKS = ("denoise", "upscale")

# channels and blocks. Enlarging is work of the finest stride, and damage is told from further around.
_SHAPES: dict[tuple[str, str], tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    ("denoise", "tiny"): ((48, 96, 160), (2, 2, 2)),
    ("denoise", "small"): ((64, 128, 256), (2, 3, 4)),
    ("denoise", "base"): ((96, 192, 384), (3, 4, 6)),
    ("upscale", "tiny"): ((48, 64, 96), (3, 1, 1)),
    ("upscale", "small"): ((64, 96, 128), (4, 2, 2)),
    ("upscale", "base"): ((96, 128, 192), (6, 3, 3)),
}

RESTORERS = {
    (task, preset): RestorationConfig(
        preset=preset,
        task=task,
        scales=(1,) if task == "denoise" else (2, 4),
        stem_stride=2 if task == "denoise" else 1,
        channels=channels,
        blocks=blocks,
    )
    for (task, preset), (channels, blocks) in _SHAPES.items()
}
