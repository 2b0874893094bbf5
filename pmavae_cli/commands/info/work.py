"""What a file is, as `pmavae info` tells it; torch is imported for latents and weights only."""

import io
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageCms

from pmavae.config import PRESETS
from pmavae.errors import ImageError, LatentFileError, WeightsError
from pmavae.pretrained.manifest import WeightsIndex
from pmavae_cli.images.formats import LATENTS, READABLE, format_of, starts_like_a_picture
from pmavae_cli.images.metadata import extras_of, unpack
from pmavae_cli.images.reading import read_picture
from pmavae_cli.run.inputs import Source

_XMP_TAG = 700  # of TIFF
_BITS = {"1": 1, "I": 16, "F": 32}  # a channel; I;16 in its variants is asked for by prefix


def describe_file(source: Source, index: WeightsIndex) -> dict[str, Any]:
    """The facts of a picture, a latent or style file or a weights file; raises PMAVAEError, naming it.

    Weights in the index are released ones.
    """
    if source.path is None:
        return _describe(io.BytesIO(sys.stdin.buffer.read()), source, index)
    try:
        with source.path.open("rb") as file:
            return _describe(file if file.seekable() else io.BytesIO(file.read()), source, index)
    except OSError as reason:
        raise ImageError(f"{source.name} cannot be read: {reason.strerror or reason}") from None


def _describe(stream: BinaryIO, source: Source, index: WeightsIndex) -> dict[str, Any]:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    first_bytes = stream.read(16)
    stream.seek(0)
    # The length of a header, before its brace, may look like the start of a picture.
    may_be_tensors = first_bytes[8:9] == b"{" or not starts_like_a_picture(first_bytes)
    named_latents = source.path is not None and format_of(source.path) is LATENTS
    is_tensors = False
    if first_bytes and (may_be_tensors or named_latents):
        from pmavae.files.tensors import looks_like_tensor_file

        is_tensors = named_latents or looks_like_tensor_file(first_bytes)
    if is_tensors:
        path = source.path if isinstance(stream, io.BufferedReader) else None
        facts = _describe_tensors(path or stream.read(), source.name, index)
    else:
        facts = _describe_picture(stream, source.name)
    return {"file": source.name, "bytes": size, **facts}


def _describe_picture(stream: BinaryIO, name: str) -> dict[str, Any]:
    """Read a whole picture file and tell of it; raises ImageError as `read_picture` does."""
    picture = read_picture(stream, name)
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(stream, formats=READABLE) as image:
            image.load()
            orientation, _ = extras_of(image)
            orientation = orientation if orientation in range(1, 9) else 1
            assert picture.pixels is not None  # only `open_large` leaves them in the file
            height, width = picture.pixels.shape[:2]
            return {
                "kind": "picture",
                "format": image.format,
                "width": width,
                "height": height,
                "mode": image.mode,
                "bits_per_channel": _bits(image, stream),
                "transparency": "alpha" in picture.carried,
                "profile": _profile(image),
                "orientation": orientation,
                "exif": orientation != 1 or unpack(picture.carried, "exif") is not None,
                "xmp": _has_xmp(image),
                "frames": getattr(image, "n_frames", 1),
                "notes": list(picture.notes),
            }


def _bits(image: Image.Image, stream: BinaryIO) -> int:
    """Of the file, where Pillow's mode has fewer."""
    if image.format == "PNG":
        stream.seek(24)  # in the first chunk
        return stream.read(1)[0]
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(258, 1)
        return int(max(found) if isinstance(found, tuple) else found)
    return 16 if image.mode.startswith("I;16") else _BITS.get(image.mode, 8)


def _profile(image: Image.Image) -> str | None:
    """The description of the colour profile, which may be damaged."""
    data = image.info.get("icc_profile")
    if not data:
        return None
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return "damaged"


def _has_xmp(image: Image.Image) -> bool:
    if any(image.info.get(key) for key in ("xmp", "XML:com.adobe.xmp")):
        return True
    return _XMP_TAG in getattr(image, "tag_v2", {})


def _describe_tensors(place: Path | bytes, name: str, index: WeightsIndex) -> dict[str, Any]:
    """Read all of a file, or its bytes, and tell of it; raises PMAVAEError, naming it."""
    from pmavae.files.header import METADATA_KEY, parse_json
    from pmavae.files.tensors import open_tensor_file

    kind = None
    with open_tensor_file(place, name=name, error=LatentFileError) as file:
        if METADATA_KEY in file.metadata:
            try:
                header = parse_json(file.metadata[METADATA_KEY])
            except ValueError:
                file.refuse("is damaged: its pmavae header is not valid JSON")
            kind = header.get("format") if isinstance(header, dict) else None
    if kind == "latent":
        return _describe_latents(place, name, index)
    if kind == "weights":
        if isinstance(place, bytes):
            raise WeightsError(f"{name} holds weights, which are read from files only: name their file")
        return describe_weights(place, index)
    raise LatentFileError(
        f"{name} is a safetensors file but neither latents nor weights of pmavae: make one with pmavae encode"
    )


def _describe_latents(place: Path | bytes, name: str, index: WeightsIndex) -> dict[str, Any]:
    from pmavae.files.latent_file import read_latents_or_style
    from pmavae.latents import Style

    found, header = read_latents_or_style(place, PRESETS.__getitem__, name=name)
    facts: dict[str, Any] = {
        "kind": "style" if isinstance(found, Style) else "latents",
        "preset": header.preset,
        "weights": header.weights_id,
        "weights_sha256": header.weights_sha256,
        "weights_released": any(entry.sha256 == header.weights_sha256 for entry in index.entries),
        "width": found.width,
        "height": found.height,
    }
    if isinstance(found, Style):
        return {**facts, "z_style": list(found.z_style.shape[1:])}
    bottom, right = found.padding
    return {
        **facts,
        "padding": [right, bottom],
        **{key: list(tensor.shape[1:]) for key, tensor in found.tensors().items()},
        "carried": sorted(header.picture),
    }


def describe_weights(path: Path, index: WeightsIndex) -> dict[str, Any]:
    """Read a weights file and tell of it; raises WeightsError, naming it."""
    from pmavae.pretrained.network import network_shapes
    from pmavae.pretrained.weights import load_weights

    loaded = load_weights(path, shapes=network_shapes)
    config = loaded.config.to_dict()
    released = next((entry for entry in index.entries if entry.sha256 == loaded.sha256), None)
    return {
        "kind": "weights",
        "id": loaded.id,
        "task": config.pop("task", "base"),
        "preset": config.pop("preset"),
        "parameters": sum(tensor.numel() for tensor in loaded.state.values()),
        "sha256": loaded.sha256,
        "released": released is not None,
        "licence": released.licence if released else None,
        "config": config,
    }
