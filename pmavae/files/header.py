"""What a weights file says of itself, read without torch and tensors, and the checks of its JSON."""

import hashlib
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any, NoReturn

MAX_SETTINGS = 100  # in a table or a list: stages, blocks, scales
MAX_NUMBER = 8192  # channels and blocks beyond it are an attack on memory, not a network


def parse_json(text: str) -> Any:
    """JSON as its standard has it: no NaN, no key twice. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("a key appears twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_string_map(value: Any) -> bool:
    """Whether a JSON value is an object with nothing but strings in it."""
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def is_label(value: Any) -> bool:
    """Whether a JSON value is a short printable string, so that a message may quote it as it is."""
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()


def is_sha256(value: Any) -> bool:
    """Whether a JSON value is a SHA-256 in lowercase hexadecimal."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def is_settings(value: Any) -> bool:
    """Whether a JSON value is a table of settings: names with a number, a word, a truth value, or a list.

    Whole numbers are from 0 to MAX_NUMBER, others finite; a list has at most MAX_SETTINGS of these.
    """
    if not isinstance(value, dict) or len(value) > MAX_SETTINGS:
        return False
    for name, setting in value.items():
        singles = setting if isinstance(setting, list) else [setting]
        if not name.isidentifier() or len(name) > 100 or len(singles) > MAX_SETTINGS:
            return False
        if not all(map(_is_single, singles)):
            return False
    return True


def _is_single(value: Any) -> bool:
    if type(value) is int:
        return 0 <= value <= MAX_NUMBER
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is bool or is_label(value)


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


CHECKSUM_KEY = "pmavae_file_crc32"  # in the metadata
BLANK = "00000000"
_PLACE = re.compile(rb'"%s"\s*:\s*"([0-9a-f]{8})"' % CHECKSUM_KEY.encode())


def stamped(data: bytes) -> bytes:
    """A safetensors file whose metadata has BLANK under the key, with the checksum in its place."""
    place = _PLACE.search(data, 8, 8 + int.from_bytes(data[:8], "little"))
    if place is None or place[1] != BLANK.encode():
        raise ValueError(f"the header has no blank {CHECKSUM_KEY}")
    return data[: place.start(1)] + b"%08x" % zlib.crc32(data) + data[place.end(1) :]


class FileDigest:
    """SHA-256 of the bytes of a file as they are read, and CRC-32 where the header states one."""

    def __init__(self) -> None:
        self.stated: str | None = None  # the checksum in the header, if it has one
        self._sha256 = hashlib.sha256()
        self._crc: int | None = None  # until the header is there

    def update(self, data: bytes | memoryview, /) -> None:
        """The header in one piece, then the rest in any."""
        self._sha256.update(data)
        if self._crc is None:
            self._crc = 0
            if place := _PLACE.search(data):
                self.stated = place[1].decode()
                data = bytes(data[: place.start(1)]) + BLANK.encode() + bytes(data[place.end(1) :])
        if self.stated is not None:
            self._crc = zlib.crc32(data, self._crc)

    @property
    def sha256(self) -> str:
        """In lowercase hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def matches(self) -> bool:
        """Whether the checksum in the header, if there is one, is that of what was read."""
        return self.stated is None or self.stated == f"{self._crc:08x}"
