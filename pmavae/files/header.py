"""What a weights file says of itself, read without torch and without its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmavae.files.json_values import is_string_map, parse_json

METADATA_KEY = "pmavae"  # of the JSON object that pmavae adds to a safetensors file
MAX_HEADER_BYTES = 2**20  # hundreds of tensor names fit in a tenth of it; the rest is for ICC and EXIF


def weights_header(path: Path) -> dict[str, Any] | None:
    """The header of a weights file of pmavae: "architecture", "config", "id".

    None for a file that is none or cannot be read. Only the header is looked at; the rest is checked by
    `pmavae.pretrained.weights.load_weights`.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                return None
            text = stream.read(length)
        # Other people's models share the cache; most need not be parsed.
        if f'"{METADATA_KEY}"'.encode() not in text:
            return None
        metadata = parse_json(text.decode("utf-8"))["__metadata__"]
        header = parse_json(metadata[METADATA_KEY]) if is_string_map(metadata) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(header, dict) or not {"format", "architecture", "config", "id"} <= set(header):
        return None
    return header if header["format"] == "weights" and isinstance(header["config"], dict) else None
