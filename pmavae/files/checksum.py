"""The checksum that a file carries of itself, and the hash that a manifest has of it, in one reading.

Eight hexadecimal digits in the header are the CRC-32 of the whole file as it is with "00000000" in their
place, so that no byte is without a guard: names, shapes and padding as little as values.
"""

from __future__ import annotations

import hashlib
import re
import zlib

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
        self._sha256 = hashlib.sha256()
        self._started = False
        self._crc = 0
        self._stated: bytes | None = None

    def update(self, data: bytes | memoryview, /) -> None:
        """The header in one piece, then the rest in any."""
        self._sha256.update(data)
        if not self._started:
            self._started = True
            if place := _PLACE.search(data):
                self._stated = place[1]
                data = bytes(data[: place.start(1)]) + BLANK.encode() + bytes(data[place.end(1) :])
        if self._stated is not None:
            self._crc = zlib.crc32(data, self._crc)

    @property
    def stated(self) -> str | None:
        """The checksum in the header, if it has one."""
        return None if self._stated is None else self._stated.decode()

    @property
    def sha256(self) -> str:
        """In lowercase hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def matches(self) -> bool:
        """Whether the checksum in the header, if there is one, is that of what was read."""
        return self._stated is None or self._stated == b"%08x" % self._crc
