"""What `pmavae bench` compares with: other ways to keep or to restore a picture, where they are installed."""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, features

from pmavae.autoencoder import PMAVAE, reflect_pad, to_tensor
from pmavae.errors import PMAVAEError
from pmavae.images.pixels import to_pixels
from pmavae.training.objectives.restoration import Trial

Pixels = NDArray[np.uint8]  # (H, W, 3)

TAESD_REPO = "madebyollin/taesd"
TAESD_FILES = ("config.json", "diffusion_pytorch_model.safetensors")

NLMEANS_H = 0.6  # of σ, for lightness and colour: has the highest PSNR, from 0.5 to 1, at each of the three σ
NLMEANS_PATCH, NLMEANS_SEARCH = 7, 21  # px, OpenCV's own


@dataclass
class Coding:
    """A picture that is to be kept in few bytes."""

    picture: Pixels
    size: int = 0  # the bytes that the first model's latents took: baselines are to take as many


@dataclass(frozen=True)
class Baseline:
    """Another program's way: of a Coding to pixels and bytes, or of a Trial to pixels."""

    task: str  # "base" for Codings
    open: Callable[[Any], Callable[[Any], Any]]  # given the model that it is compared with
    missing: Callable[[], str | None] = lambda: None  # why it cannot be used here, None where it can
    noise_only: bool = False

    def takes(self, case: Any) -> bool:
        """Whether it is made for a Coding, or for the damage of a Trial."""
        return not self.noise_only or case.condition.levels.noise > 0


def _without(module: str, package: str) -> str | None:
    return None if importlib.util.find_spec(module) else f"it needs: pip install {package}"


def _file_codec(kind: str, ours: PMAVAE) -> Callable[[Coding], tuple[Pixels, int]]:
    """The quality whose file is nearest to the given size, headers included."""

    def encode(image: Image.Image, quality: int) -> bytes:
        stream = io.BytesIO()
        try:
            image.save(stream, kind, quality=quality)
        except (OSError, ValueError) as reason:  # such as more pixels a side than the format has bits for
            raise PMAVAEError(f"{kind} cannot hold this picture ({reason}): leave this peer out") from None
        return stream.getvalue()

    def reconstruct(coding: Coding) -> tuple[Pixels, int]:
        image = Image.fromarray(coding.picture)
        low, high = 1, 95
        while low < high:  # file sizes grow with the quality
            middle = (low + high) // 2
            low, high = (middle + 1, high) if len(encode(image, middle)) < coding.size else (low, middle)
        candidates = [encode(image, quality) for quality in {max(1, low - 1), low}]
        data = min(candidates, key=lambda d: abs(len(d) - coding.size))
        with Image.open(io.BytesIO(data)) as decoded:
            return np.asarray(decoded.convert("RGB")), len(data)

    return reconstruct


def _webp_missing() -> str | None:
    return None if features.check("webp") else "this Pillow is built without WebP"


def _taesd_missing() -> str | None:
    if reason := _without("diffusers", "diffusers"):
        return reason
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


def _taesd(ours: PMAVAE) -> Callable[[Coding], tuple[Pixels, int]]:
    """TAESD, 4 latent channels at stride 8; its latents counted as fp16."""
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny.from_pretrained(TAESD_REPO, local_files_only=True).eval().to(ours.device)

    @torch.no_grad()
    def reconstruct(coding: Coding) -> tuple[Pixels, int]:
        height, width = coding.picture.shape[:2]
        padded = np.pad(coding.picture, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].to(ours.device).float() / 127.5 - 1
        latents = model.encode(x).latents
        decoded = model.decode(latents).sample[0].clamp(-1, 1)
        return to_pixels((decoded + 1) / 2)[:height, :width], 2 * latents.numel()

    return reconstruct


def _linear(ours: PMAVAE) -> Callable[[Coding], tuple[Pixels, int]]:
    """The model's linear maps alone, as they are after training; their latents counted as fp16."""
    encoder, decoder = ours.encoder, ours.decoder

    @torch.no_grad()
    def reconstruct(coding: Coding) -> tuple[Pixels, int]:
        height, width = coding.picture.shape[:2]
        x = reflect_pad(to_tensor(coding.picture).to(ours.device)) - 0.5
        base, detail = encoder.linear_base(x).half(), encoder.linear_detail(x).half()
        decoded = decoder.lapped_base(base.float()) + decoder.lapped_detail(detail.float()) + 0.5
        return to_pixels(decoded[0].clamp(0, 1))[:height, :width], 2 * (base.numel() + detail.numel())

    return reconstruct


def _bm3d(ours: Any) -> Callable[[Trial], Pixels]:
    """BM3D for colour (Mäkinen et al. 2020) with the true σ, on as many threads as the network."""
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.num_threads = torch.get_num_threads()

    def restore(trial: Trial) -> Pixels:
        damaged = trial.damaged.astype(np.float64) / 255
        result = bm3d.bm3d_rgb(damaged, trial.condition.levels.noise / 255, profile)
        return np.asarray(255 * result).round().clip(0, 255).astype(np.uint8)

    return restore


def _nlmeans(ours: Any) -> Callable[[Trial], Pixels]:
    """OpenCV's non-local means, which takes 8 bits alone."""
    import cv2

    def restore(trial: Trial) -> Pixels:
        cv2.setNumThreads(torch.get_num_threads())
        h = NLMEANS_H * trial.condition.levels.noise
        bgr = np.ascontiguousarray(trial.shown[..., ::-1])
        result = cv2.fastNlMeansDenoisingColored(bgr, None, h, h, NLMEANS_PATCH, NLMEANS_SEARCH)
        return np.asarray(result, np.uint8)[..., ::-1].copy()

    return restore


def _resized(kind: Image.Resampling, ours: Any) -> Callable[[Trial], Pixels]:
    def restore(trial: Trial) -> Pixels:
        height, width = trial.reference.shape[:2]
        return np.asarray(Image.fromarray(trial.shown).resize((width, height), kind))

    return restore


BASELINES = {
    "linear": Baseline("base", _linear),
    "jpeg": Baseline("base", partial(_file_codec, "JPEG")),
    "webp": Baseline("base", partial(_file_codec, "WEBP"), _webp_missing),
    "taesd": Baseline("base", _taesd, _taesd_missing),
    "input": Baseline("denoise", lambda ours: lambda trial: trial.shown),
    "bm3d": Baseline("denoise", _bm3d, partial(_without, "bm3d", "bm3d"), noise_only=True),
    "nlmeans": Baseline(
        "denoise", _nlmeans, partial(_without, "cv2", "opencv-python-headless"), noise_only=True
    ),
    "bicubic": Baseline("upscale", partial(_resized, Image.Resampling.BICUBIC)),
    "lanczos": Baseline("upscale", partial(_resized, Image.Resampling.LANCZOS)),
}
