"""What `pmavae bench` compares with: other ways to keep a picture in few bytes, where they are installed."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

Picture = NDArray[np.uint8]  # (H, W, 3)
# A picture and the bytes that our latents of it took, to what became of it and the bytes that took.
Codec = Callable[[Picture, int], tuple[Picture, int]]

TAESD_REPO = "madebyollin/taesd"


@dataclass(frozen=True)
class Peer:
    """Another codec."""

    name: str
    open: Callable[[], Codec]
    missing: Callable[[], str | None]  # why it cannot be used here, None where it can


def _file_codec(kind: str) -> Codec:
    """The quality whose file is nearest to the given size, headers included."""

    def encode(image: Image.Image, quality: int) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, quality=quality)
        return stream.getvalue()

    def reconstruct(picture: Picture, size: int) -> tuple[Picture, int]:
        image = Image.fromarray(picture)
        low, high = 1, 95
        while low < high:  # file sizes grow with the quality
            middle = (low + high) // 2
            low, high = (middle + 1, high) if len(encode(image, middle)) < size else (low, middle)
        candidates = [encode(image, quality) for quality in {max(1, low - 1), low}]
        data = min(candidates, key=lambda d: abs(len(d) - size))
        with Image.open(io.BytesIO(data)) as decoded:
            return np.asarray(decoded.convert("RGB")), len(data)

    return reconstruct


def _webp_missing() -> str | None:
    return None if features.check("webp") else "this Pillow is built without WebP"


def _taesd_missing() -> str | None:
    if importlib.util.find_spec("diffusers") is None:
        return "it needs: pip install diffusers"
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(TAESD_REPO, "config.json"), str):
        return f"{TAESD_REPO} is not in the Hugging Face cache"
    return None


def _taesd() -> Codec:
    """TAESD, 4 latent channels at stride 8; its latents counted as fp16."""
    import torch

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny.from_pretrained(TAESD_REPO, local_files_only=True).eval()

    @torch.no_grad()
    def reconstruct(picture: Picture, size: int) -> tuple[Picture, int]:
        height, width = picture.shape[:2]
        padded = np.pad(picture, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = model.encode(x).latents
        decoded = model.decode(latents).sample[0].permute(1, 2, 0).clamp(-1, 1)
        pixels = ((decoded + 1) * 127.5).round().byte().numpy()[:height, :width]
        return pixels, 2 * latents.numel()

    return reconstruct


PEERS = {
    "jpeg": Peer("jpeg", lambda: _file_codec("JPEG"), lambda: None),
    "webp": Peer("webp", lambda: _file_codec("WEBP"), _webp_missing),
    "taesd": Peer("taesd", _taesd, _taesd_missing),
}
