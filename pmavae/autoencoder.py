"""PMAVAE: the autoencoder as its users hold it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor

from pmavae.config import MIN_SIZE, ModelConfig
from pmavae.errors import ImageError, WeightsError
from pmavae.files.header import weights_header
from pmavae.files.tensors import write_atomically
from pmavae.images.pixels import ArrayRows, Pixels, RowSource
from pmavae.inference.engine import decode, decode_rows, encode, encode_rows
from pmavae.inference.offload import Budget
from pmavae.latents import Latents, expected_shapes, padded
from pmavae.model import Decoder, Encoder
from pmavae.network_configs import FEATURES_TASK, VMAMBA_TASK
from pmavae.pretrained.manifest import CONFIG_FILE, config_text
from pmavae.pretrained.network import Pretrained, check_config, refuse_foreign_config
from pmavae.pretrained.weights import LoadedWeights

DEFAULT = Budget()

Picture = Tensor | Image.Image | np.ndarray[Any, Any]


def to_tensor(image: Picture) -> Tensor:
    """A picture as (B, 3, H, W) float32 in [0, 1].

    Takes a tensor of that shape, a PIL picture of 8 bits (as it lies: EXIF orientation is the
    caller's), or an array (H, W, 3) or (B, H, W, 3) of uint8 or, from 0 to 65535, uint16. Raises
    ImageError for anything else and for sides under 16 px.
    """
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):  # convert() would clip these to white
            raise ImageError(
                f"a PIL picture of mode {image.mode} has more than 8 bits: give a uint16 array (H, W, 3)"
            )
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        _check_array(image)
        pixels = torch.from_numpy(image.copy()).reshape(-1, *image.shape[-3:])
        image = pixels.permute(0, 3, 1, 2).float() / np.iinfo(image.dtype).max
    if image.dim() != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ImageError(f"expected a float tensor (B, 3, H, W) in [0, 1], got {tuple(image.shape)}")
    if image.shape[0] == 0:
        raise ImageError("the batch is empty")
    _check_size(*image.shape[-2:])
    return image.float()


def _check_array(image: np.ndarray[Any, Any]) -> None:
    if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise ImageError(f"expected a uint8 or uint16 array (H, W, 3), got {image.dtype} {image.shape}")


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIZE:
        raise ImageError(f"{width}×{height} px is too small: both sides must be at least {MIN_SIZE} px")


def reflect_pad(picture: Tensor) -> Tensor:
    """Extend (B, 3, H, W) at the bottom and right, by reflection, to multiples of 16."""
    height, width = picture.shape[-2:]
    return F.pad(picture, (0, padded(width) - width, 0, padded(height) - height), mode="reflect")


class PMAVAE(Pretrained):
    """Encoder and decoder of one preset.

    `PMAVAE(PRESETS["tiny"])` is untrained; `PMAVAE.from_pretrained("tiny")` has the released
    weights. `weights_id` and `weights_sha256` name the file they came from: latent files carry
    them, because latents mean something only to the weights that made them.
    """

    config_type, tasks = ModelConfig, ("base",)

    def __init__(self, config: ModelConfig, budget: Budget = DEFAULT) -> None:
        super().__init__()
        self.config = config
        self.budget = budget
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @torch.no_grad()
    def encode(self, image: Picture | RowSource) -> Latents:
        """The posterior means and log-variances of a batch of pictures; see `to_tensor`.

        An array of one picture that is too large for the budget is encoded in strips, and so is a
        `RowSource`, which is then read twice.
        """
        if isinstance(image, np.ndarray) and image.ndim == 3:
            _check_array(image)
            _check_size(*image.shape[:2])
            image = ArrayRows(image)
        if isinstance(image, RowSource):
            height, width = image.shape[:2]
            posterior = encode_rows(self.encoder, image, self.device, self.budget)
        else:
            picture = to_tensor(image).to(self.device)
            height, width = picture.shape[-2:]
            posterior = encode(self.encoder, reflect_pad(picture))
        return Latents(
            z_base=posterior.z_base,
            z_detail=posterior.z_detail,
            z_style=posterior.z_style,
            height=height,
            width=width,
            logvar_base=posterior.logvar_base,
            logvar_detail=posterior.logvar_detail,
        )

    @torch.no_grad()
    def decode(self, latents: Latents) -> Tensor:
        """(B, 3, height, width) in [0, 1]; raises ValueError for latents that are not this model's.

        Takes latents of any floating dtype and memory layout and gives the same bytes for all layouts:
        convolutions round differently in channels-last memory, which an encoder's latents are in.
        """
        z = self._checked(latents)
        painted = bool(z.z_style[:, -1].any())
        picture = decode(self.decoder, z.z_base, z.z_detail, z.z_style, painted)
        return picture[..., : z.height, : z.width].clamp(0, 1)

    def decode_pixels(self, latents: Latents, dtype: DTypeLike = np.uint8) -> Pixels:
        """What `decode` gives for one picture as (height, width, 3), uint8 or uint16.

        In strips where it is too large for the budget. Raises as `decode` does, and ValueError for a batch
        of several.
        """
        pixels: Pixels | None = None
        top = 0
        for strip in self.decode_rows(latents, dtype):
            if strip.shape[0] == latents.height:
                return strip
            if pixels is None:
                pixels = np.empty((latents.height, latents.width, 3), dtype)
            pixels[top : top + strip.shape[0]] = strip
            top += strip.shape[0]
        assert pixels is not None
        return pixels

    def decode_rows(self, latents: Latents, dtype: DTypeLike = np.uint8) -> Iterator[Pixels]:
        """What `decode_pixels` gives, as strips (h, width, 3) from the top to the bottom.

        Of a large picture only one strip is there at a time. Raises as `decode_pixels` does, at once.
        """
        if latents.z_base.shape[0] != 1:
            raise ValueError(f"expected the latents of one picture, got {latents.z_base.shape[0]}")
        return decode_rows(self.decoder, self._checked(latents), dtype, self.budget)

    def _checked(self, latents: Latents) -> Latents:
        """Latents of this model's shapes, on its device, float32 and in one memory layout."""
        expected = expected_shapes(self.config, latents.height, latents.width)
        changed = {}
        for name in ("z_base", "z_detail", "z_style"):
            z = getattr(latents, name)
            if (shape := tuple(z.shape[1:])) != expected[name]:
                raise ValueError(f"{name} has the shape {shape} a picture, not {expected[name]}")
            changed[name] = z.to(self.device, torch.float32).contiguous()
        return latents.replace(**changed)

    def _named(self, loaded: LoadedWeights, path: Path) -> Self:
        """Raises WeightsError too where a config.json beside the file differs."""
        check_config(path, loaded)
        return super()._named(loaded, path)

    @classmethod
    def wrong_weights(cls, path: Path, found: str, task: str) -> WeightsError:
        """That the weights are no autoencoder's."""
        no_task = found in (FEATURES_TASK, VMAMBA_TASK)
        remedy = "name those of one" if no_task else f"use them with pmavae {found}"
        return WeightsError(f"{path} has weights of the task {found}, which are no autoencoder: {remedy}")

    def save_pretrained(
        self, folder: str | Path, weights_id: str | None = None, dtype: torch.dtype | None = None
    ) -> Path:
        """Write `model.safetensors` (fp16) and `config.json` into the folder; returns the path of the first.

        Raises WeightsError where one cannot be written, or where a config.json of something else is there.
        """
        refuse_foreign_config(Path(folder))
        path = super().save_pretrained(folder, weights_id, dtype)
        header = weights_header(path)
        assert header is not None
        write_atomically(path.with_name(CONFIG_FILE), config_text(header).encode(), error=WeightsError)
        return path
