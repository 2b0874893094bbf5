"""Weights files with bytes flipped, cut off, put in and changed places: never read as something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_weights import KINDS, Parts, write

from pmavae.errors import WeightsError
from pmavae.pretrained.weights import load_weights

Edit = tuple[str, int, int, bytes]
# What to do, where (as a share of a million), over how many bytes, and with which.
EDITS = st.tuples(
    st.sampled_from(["flip", "put", "insert", "cut", "end", "swap"]),
    st.integers(0, 999_999),
    st.integers(1, 64),
    st.binary(min_size=1, max_size=16),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {kind: write(kind, folder / kind) for kind in KINDS}


def edited(data: bytes, edit: Edit, headers: bool) -> bytes:
    """The file after one edit, in its header or anywhere."""
    what, share, length, new = edit
    end = min(len(data), 8 + int.from_bytes(data[:8], "little")) if headers else len(data)
    place = share * end // 1_000_000
    match what:
        case "flip":
            return data[:place] + bytes([data[place] ^ 1 << length % 8]) + data[place + 1 :]
        case "put":
            return data[:place] + new + data[place + len(new) :]
        case "insert":
            return data[:place] + new + data[place:]
        case "cut":
            return data[:place] + data[place + length :]
        case "end":
            return data[:place]
    middle = place + length
    return data[:place] + data[middle : middle + length] + data[place:middle] + data[middle + length :]


def check(load: Callable[[Path], object], path: Path, original: bytes, changed: bytes) -> None:
    """A file that is not what was written is refused in one sentence that names it."""
    path.write_bytes(changed)
    if changed == original:
        load(path)
        return
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and message.isprintable() and len(message) < len(str(path)) + 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("headers", [True, False], ids=["header", "anywhere"])
def test_an_edited_file_is_refused(files: dict[str, Path], kind: str, headers: bool) -> None:
    original = files[kind].read_bytes()
    path = files[kind].with_name(f"{kind}.safetensors")

    @settings(derandomize=True, max_examples=60, deadline=None, database=None)
    @given(st.lists(EDITS, min_size=1, max_size=3))
    def fuzz(edits: list[Edit]) -> None:
        changed = original
        for edit in edits:
            if changed:
                changed = edited(changed, edit, headers)
        check(KINDS[kind].load, path, original, changed)

    fuzz()


def test_every_bit_of_a_file_counts(files: dict[str, Path]) -> None:
    original = files["plugin"].read_bytes()
    path = files["plugin"].with_name("bits.safetensors")
    for place in range(len(original)):
        for bit in range(8):
            changed = bytearray(original)
            changed[place] ^= 1 << bit
            check(load_weights, path, original, bytes(changed))


def test_white_space_and_bytes_of_the_header_count(files: dict[str, Path]) -> None:
    """Any byte in place of any of the padding, which JSON may not care for."""
    original = files["upscale"].read_bytes()
    end = 8 + int.from_bytes(original[:8], "little")
    path = files["upscale"].with_name("padding.safetensors")
    text = original[8:end]
    assert text.endswith(b" ")  # or there would be no padding in this test
    for byte in b"\t\n\r\0}":
        check(load_weights, path, original, original[: end - 1] + bytes([byte]) + original[end:])


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_file_without_a_checksum_the_tensors_are_as_its_bytes_say(
    files: dict[str, Path], kind: str
) -> None:
    """Where nothing guards the values, an edit of the header is refused, or leaves every tensor as it was."""
    original = Parts.of(files[kind].read_bytes()).bytes()
    path = files[kind].with_name(f"{kind}-old.safetensors")
    path.write_bytes(original)
    expected = KINDS[kind].load(path).state_dict()
    data = original[8 + int.from_bytes(original[:8], "little") :]

    @settings(derandomize=True, max_examples=60, deadline=None, database=None)
    @given(EDITS)
    def fuzz(edit: Edit) -> None:
        changed = edited(original, edit, headers=True)
        path.write_bytes(changed)
        try:
            state = KINDS[kind].load(path).state_dict()
        except WeightsError as error:
            assert str(error).startswith(f"{path} ")
            return
        assert changed.endswith(data)
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())

    fuzz()
