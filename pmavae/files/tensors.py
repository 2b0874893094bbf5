"""Safetensors files: read as if they were hostile, written all or nothing.

A safetensors file is an 8-byte little-endian length N, N bytes of JSON that describe the tensors,
then the tensors' bytes without gaps. Latent files and weights files are both of this kind; what
they add is a JSON object of their own under the metadata key "pmavae".
"""

import io
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from pmavae.errors import PMAVAEError
from pmavae.files.header import MAX_HEADER_BYTES, METADATA_KEY, FileDigest, is_string_map, parse_json

MAX_DIMENSIONS = 8
MAX_INTEGER = 2**63  # of a shape or an offset: what is beyond it may have thousands of digits
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Spec:
    """Where one tensor lies in the data section, in bytes, and how to read it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class HeaderTooLargeError(ValueError):
    """Names and metadata make a header that would not be read again."""


class _Refused(Exception):
    """Why a file is not read, as the rest of a sentence that starts with its name."""


class _Foreign(_Refused):
    """The file is of another format."""


@dataclass(frozen=True)
class TensorFile:
    """An open file whose header is checked and whose tensors are not read yet."""

    name: str
    metadata: dict[str, str]
    _error: type[PMAVAEError]
    _specs: dict[str, _Spec]  # in the order of the data section
    _stream: BinaryIO  # at the first byte of the data section
    _digest: FileDigest | None

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.end - spec.begin for spec in self._specs.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by name."""
        return {name: spec.shape for name, spec in self._specs.items()}

    def refuse(self, reason: str) -> NoReturn:
        """Raise the caller's error: the file's name, then the reason."""
        raise self._error(_sentence(self.name, reason))

    def header(self, kind: str) -> dict[str, Any]:
        """The JSON object under the metadata key "pmavae", of a file of this kind ("latent", "weights")."""
        if METADATA_KEY not in self.metadata:
            self.refuse(f"is a safetensors file but not a pmavae {kind} file")
        try:
            header = parse_json(self.metadata[METADATA_KEY])
        except ValueError:
            self.refuse("is damaged: its pmavae header is not valid JSON")
        found = header.get("format") if isinstance(header, dict) else None
        if found != kind:
            self.refuse(f"is a safetensors file but not a pmavae {kind} file (its format is {found!r:.40})")
        return dict(header)

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Read one tensor after the other, in the order and the dtype of the file; to be called once."""
        for name, spec in self._specs.items():
            try:
                data = torch.empty(spec.end - spec.begin, dtype=torch.uint8)
            except RuntimeError:  # torch's word for it
                self.refuse(f"needs {self.size} bytes of memory, more than there are")
            view = data.numpy().data
            if self._stream.readinto(view) != len(view):  # type: ignore[attr-defined]
                self.refuse("is truncated: it became shorter while it was read")
            if self._digest is not None:
                self._digest.update(view)
            yield name, data.view(spec.dtype).reshape(spec.shape)
        if self._stream.read(1):
            self.refuse("is damaged: it became longer while it was read")


@contextmanager
def open_tensor_file(
    source: str | Path | bytes,
    *,
    name: str,
    error: type[PMAVAEError],
    digest: FileDigest | None = None,
    pipes: bool = True,
    remedy: str = "",
) -> Iterator[TensorFile]:
    """Open a safetensors file, or its bytes, and check its header and its size.

    Memory for the tensors is taken by `TensorFile.read()` only, so that a caller can refuse a
    file by its shapes and metadata first. `name` is what messages call the file. `digest` is updated with
    every byte that is read. Without `pipes`, what is no regular file is refused and not waited for. `remedy`
    ends the sentence about a file of another format. Raises `error`, in one sentence, where the file cannot
    be read, is empty, truncated, followed by other bytes, not a safetensors file, or holds a dtype other
    than F16, BF16 and F32.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else _open(Path(source), pipes) as stream:
            # A pipe has no size to check the header against.
            seekable = stream if stream.seekable() else io.BytesIO(stream.read())
            specs, metadata = _read_header(seekable, digest)
            yield TensorFile(name, metadata, error, specs, seekable, digest)
    except _Foreign as reason:
        raise error(f"{name} {reason}{remedy}") from None
    except _Refused as reason:
        raise error(_sentence(name, str(reason))) from None
    except OSError as reason:
        raise error(f"{name} cannot be read: {reason.strerror or reason}") from None


def _open(path: Path, pipes: bool) -> BinaryIO:
    if pipes:
        return path.open("rb")
    # Without O_NONBLOCK, opening a named pipe waits for a writer before it can be refused.
    flag = getattr(os, "O_NONBLOCK", 0)
    raw = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | flag))
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise _Refused("is a pipe or a device and no file: save what it gives as a file, and name that")
    return io.BufferedReader(raw)


def _sentence(name: str, reason: str) -> str:
    """A refusal, with the remedy where the file has suffered since it was written."""
    broken = reason.startswith(("is empty", "is truncated", "is damaged"))
    return f"{name} {reason}; copy it again from where it came" if broken else f"{name} {reason}"


def _read_header(stream: BinaryIO, digest: FileDigest | None) -> tuple[dict[str, _Spec], dict[str, str]]:
    """Check all that can be checked without reading a tensor; leave the stream at the data."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size == 0:
        raise _Refused("is empty")
    start = stream.read(9)
    length = int.from_bytes(start[:8], "little")
    if not looks_like_tensor_file(start):
        if start[8:] == b"{" and MAX_HEADER_BYTES < length <= size - 8:
            raise _Refused(
                f"has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read: "
                "use a file with fewer tensors and less metadata"
            )
        raise _Foreign("is not a safetensors file")
    if size < 8 + length:
        raise _Refused(f"is truncated: {size} bytes are there, its header alone needs {8 + length}")
    start += stream.read(length - 1)
    if len(start) != 8 + length:
        raise _Refused("is truncated: it became shorter while it was read")
    if digest is not None:
        digest.update(start)
    try:
        header = parse_json(start[8:].decode("utf-8"))
    except ValueError:
        raise _Foreign("is not a safetensors file: its header is not valid JSON") from None
    metadata = header.pop("__metadata__", {})
    if not is_string_map(metadata):
        raise _Refused("is damaged: its metadata is not a map of strings")
    described = [(name, _spec(name, entry)) for name, entry in header.items()]
    specs = dict(sorted(described, key=lambda item: item[1].begin))
    end = 0
    for name, spec in specs.items():
        if spec.begin != end:
            raise _Refused(f"is damaged: tensor {name!r:.40} does not start where the one before it ends")
        end = spec.end
    expected = 8 + length + end
    if size < expected:
        raise _Refused(f"is truncated: {size} of {expected} bytes are there")
    if size > expected:
        raise _Refused(f"is damaged: {size - expected} bytes follow its last tensor")
    return specs, metadata


def _spec(name: str, entry: Any) -> _Spec:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Refused(f"is damaged: the description of tensor {name!r:.40} is not valid")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _Refused(f"has tensor {name!r:.40} of dtype {dtype!r:.40}; only F16, BF16 and F32 are read")
    # An empty tensor is of no use to any file here and would allow sizes beyond 64 bits beside its zero.
    if not _is_int_list(shape, least=1) or len(shape) > MAX_DIMENSIONS:
        raise _Refused(f"is damaged: the shape of tensor {name!r:.40} is not valid")
    if not _is_int_list(offsets, least=0) or len(offsets) != 2:
        raise _Refused(f"is damaged: the offsets of tensor {name!r:.40} are not valid")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _Refused(f"is damaged: tensor {name!r:.40} does not have the bytes that its shape needs")
    return _Spec(DTYPES[dtype], tuple(shape), begin, end)


def _is_int_list(value: Any, least: int) -> bool:
    return isinstance(value, list) and all(type(v) is int and least <= v < MAX_INTEGER for v in value)


def looks_like_tensor_file(first_bytes: bytes) -> bool:
    """Whether a file that starts with these bytes (at least 9) can be a safetensors file."""
    length = int.from_bytes(first_bytes[:8], "little")
    return first_bytes[8:9] == b"{" and 2 <= length <= MAX_HEADER_BYTES


def raw_bytes(tensor: Tensor) -> bytes:
    """The elements of a tensor, little-endian and in row-major order, as in a file."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def to_json(value: Mapping[str, Any]) -> str:
    """The same text for the same value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def tensor_file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A whole safetensors file in memory; the same bytes for the same input.

    Raises ValueError for a dtype other than float16, bfloat16 and float32, HeaderTooLargeError for
    more than 1 MiB of names and metadata.
    """
    # Wider elements first, so that each tensor is aligned to its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data = []
    offset = 0
    for name, tensor in ordered:
        if tensor.dtype not in _DTYPE_NAMES:
            raise ValueError(f"tensor {name} is of type {tensor.dtype}, which a file cannot hold")
        data.append(raw_bytes(tensor))
        end = offset + len(data[-1])
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = to_json(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise HeaderTooLargeError(f"a header of {len(text)} bytes is more than {MAX_HEADER_BYTES}")
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


# Begins the names of temporary files, for whoever has to find those of a process that was killed.
part_prefix = ""


def write_atomically(path: str | Path, data: bytes, *, error: type[PMAVAEError]) -> None:
    """Write a file so that nobody ever sees half of it; raises `error`, naming it, where that fails."""
    with atomic_file(path, error=error) as stream:
        stream.write(data)


@contextmanager
def atomic_file(path: str | Path, *, error: type[PMAVAEError]) -> Iterator[BinaryIO]:
    """A file to write, which is in its place once the block has ended, and nowhere where it raises."""
    target = Path(os.path.realpath(path))  # a link stays a link
    part = target.with_name(f".{part_prefix}{secrets.token_hex(8)}.part")
    try:
        if target.exists() and not target.is_file():
            # Renaming over a device such as /dev/null would replace the device.
            with target.open("wb") as stream:
                yield stream
            return
        try:
            with part.open("xb") as stream:
                yield stream
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as reason:
        raise error(f"{path} cannot be written: {reason.strerror or reason}") from None
