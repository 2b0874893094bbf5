"""What `pmavae bench --task` compares with: other ways to restore a picture, where they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pmavae.training.objectives.restoration import Condition, Trial

Restoration = Callable[[Trial], NDArray[np.uint8]]  # gives (H, W, 3)

NLMEANS_H = 0.6  # of σ, for lightness and colour: has the highest PSNR, from 0.5 to 1, at each of the three σ
NLMEANS_PATCH, NLMEANS_SEARCH = 7, 21  # px, OpenCV's own


@dataclass(frozen=True)
class Method:
    """One way to restore pictures."""

    run: Restoration
    takes: Callable[[Condition], bool]  # whether it is made for that damage


@dataclass(frozen=True)
class Peer:
    """Another program's way."""

    task: str
    open: Callable[[], Restoration]
    package: str | None = None  # that it comes from, beyond those that are always here: what pip calls it
    module: str = ""  # what Python calls it
    noise_only: bool = False

    def takes(self, condition: Condition) -> bool:
        """Whether it is made for that damage."""
        return condition.task == self.task and (condition.levels.noise > 0 or not self.noise_only)

    def missing(self) -> str | None:
        """Why it cannot be used here, None where it can."""
        if self.package and importlib.util.find_spec(self.module) is None:
            return f"it needs: pip install {self.package}"
        return None


def _bm3d() -> Restoration:
    """BM3D for colour (Mäkinen et al. 2020) with the true σ, on as many threads as the network."""
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.num_threads = torch.get_num_threads()

    def restore(trial: Trial) -> NDArray[np.uint8]:
        damaged = trial.damaged.astype(np.float64) / 255
        result = bm3d.bm3d_rgb(damaged, trial.condition.levels.noise / 255, profile)
        return _rounded(255 * result)

    return restore


def _nlmeans() -> Restoration:
    """OpenCV's non-local means, which takes 8 bits alone."""
    import cv2

    def restore(trial: Trial) -> NDArray[np.uint8]:
        cv2.setNumThreads(torch.get_num_threads())
        h = NLMEANS_H * trial.condition.levels.noise
        bgr = np.ascontiguousarray(trial.shown[..., ::-1])
        result = cv2.fastNlMeansDenoisingColored(bgr, None, h, h, NLMEANS_PATCH, NLMEANS_SEARCH)
        return np.asarray(result, np.uint8)[..., ::-1].copy()

    return restore


def _resized(kind: Image.Resampling) -> Callable[[], Restoration]:
    def restore(trial: Trial) -> NDArray[np.uint8]:
        height, width = trial.reference.shape[:2]
        return np.asarray(Image.fromarray(trial.shown).resize((width, height), kind))

    return lambda: restore


def _rounded(pixels: NDArray[np.floating]) -> NDArray[np.uint8]:
    return pixels.round().clip(0, 255).astype(np.uint8)


PEERS = {
    "input": Peer("denoise", lambda: lambda trial: trial.shown),
    "bm3d": Peer("denoise", _bm3d, package="bm3d", module="bm3d", noise_only=True),
    "nlmeans": Peer("denoise", _nlmeans, package="opencv-python-headless", module="cv2", noise_only=True),
    "bicubic": Peer("upscale", _resized(Image.Resampling.BICUBIC)),
    "lanczos": Peer("upscale", _resized(Image.Resampling.LANCZOS)),
}


def baseline(condition: Condition) -> tuple[str, ...]:
    """The peers that a result is held against, the first that was run."""
    if condition.task == "upscale":
        return ("bicubic",)
    return ("bm3d", "input") if condition.levels.noise else ("input",)
