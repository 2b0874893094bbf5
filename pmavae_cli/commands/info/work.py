"""What a file is, as `pmavae info` tells it; torch is imported for latents and weights only."""

from __future__ import annotations

import io
import sys
from typing import Any, BinaryIO

from pmavae.errors import ImageError
from pmavae.pretrained.manifest import WeightsIndex
from pmavae_cli.images.formats import LATENTS, format_of, starts_like_a_picture
from pmavae_cli.run.inputs import Source


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
    return {"file": source.name, "bytes": size, **_by_kind(stream, source, index)}


def _by_kind(stream: BinaryIO, source: Source, index: WeightsIndex) -> dict[str, Any]:
    first_bytes = stream.read(16)
    stream.seek(0)
    # The length of a header, before its brace, may look like the start of a picture.
    may_be_tensors = first_bytes[8:9] == b"{" or not starts_like_a_picture(first_bytes)
    named_latents = source.path is not None and format_of(source.path) is LATENTS
    if first_bytes and (may_be_tensors or named_latents):
        from pmavae.files.tensors import looks_like_tensor_file

        if named_latents or looks_like_tensor_file(first_bytes):
            from pmavae_cli.commands.info.tensor_files import describe_tensor_file

            path = source.path if isinstance(stream, io.BufferedReader) else None
            return describe_tensor_file(path or stream.read(), source.name, index)
    from pmavae_cli.commands.info.pictures import describe_picture

    return describe_picture(stream, source.name)
