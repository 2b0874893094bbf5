"""What `pmavae bench` compares with: other ways to keep a picture in few bytes, where they are installed."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from pmavae.errors import PMAVAEError

if TYPE_CHECKING:
    from pmavae import PMAVAE

Picture = NDArray[np.uint8]  # (H, W, 3)
# A picture and the bytes that our latents of it took, to what became of it and the bytes that took.
Codec = Callable[[Picture, int], tuple[Picture, int]]

TAESD_REPO = "madebyollin/taesd"
TAESD_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class Peer:
    """Another codec."""

    name: str
    open: Callable[[PMAVAE], Codec]  # given the model that it is compared with
    missing: Callable[[], str | None]  # why it cannot be used here, None where it can


def _file_codec(kind: str) -> Codec:
    """The quality whose file is nearest to the given size, headers included."""

    def encode(image: Image.Image, quality: int) -> bytes:
        stream = io.BytesIO()
        try:
            image.save(stream, kind, quality=quality)
        except (OSError, ValueError) as reason:  # such as more pixels a side than the format has bits for
            raise PMAVAEError(f"{kind} cannot hold this picture ({reason}): leave this peer out") from None
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

    if not all(isinstance(try_to_load_from_cache(TAESD_REPO, name), str) for name in TAESD_FILES):
        return f"{TAESD_REPO} is not in the Hugging Face cache: hf download {TAESD_REPO}"
    try:
        from diffusers import AutoencoderTiny  # noqa: F401
    except (ImportError, RuntimeError):  # as beside a torchvision that was built for another torch
        return (
            "the installed diffusers cannot be imported: "
            "python -c 'from diffusers import AutoencoderTiny' tells why"
        )
    return None


def _taesd(ours: PMAVAE) -> Codec:
    """TAESD, 4 latent channels at stride 8; its latents counted as fp16."""
    import torch
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny.from_pretrained(TAESD_REPO, local_files_only=True).eval().to(ours.device)

    @torch.no_grad()
    def reconstruct(picture: Picture, size: int) -> tuple[Picture, int]:
        height, width = picture.shape[:2]
        padded = np.pad(picture, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].to(ours.device).float() / 127.5 - 1
        latents = model.encode(x).latents
        decoded = model.decode(latents).sample[0].permute(1, 2, 0).clamp(-1, 1)
        pixels = ((decoded + 1) * 127.5).round().byte().cpu().numpy()[:height, :width]
        return pixels, 2 * latents.numel()

    return reconstruct


def _linear(model: PMAVAE) -> Codec:
    """The model's linear maps alone, as they are after training; their latents counted as fp16."""
    import torch

    from pmavae.autoencoder import reflect_pad, to_tensor

    encoder, decoder = model.encoder, model.decoder

    @torch.no_grad()
    def reconstruct(picture: Picture, size: int) -> tuple[Picture, int]:
        height, width = picture.shape[:2]
        x = reflect_pad(to_tensor(picture).to(model.device)) - 0.5
        base, detail = encoder.linear_base(x).half(), encoder.linear_detail(x).half()
        decoded = decoder.lapped_base(base.float()) + decoder.lapped_detail(detail.float()) + 0.5
        pixels = (decoded[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        return pixels[:height, :width], 2 * (base.numel() + detail.numel())

    return reconstruct


PEERS = {
    "linear": Peer("linear", _linear, lambda: None),
    "jpeg": Peer("jpeg", lambda ours: _file_codec("JPEG"), lambda: None),
    "webp": Peer("webp", lambda ours: _file_codec("WEBP"), _webp_missing),
    "taesd": Peer("taesd", _taesd, _taesd_missing),
}
