"""Latent files: the format is pinned, a round trip is exact, a damaged file is refused in one sentence."""

import functools
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from small_config import CONFIG

from pmavae.errors import LatentFileError, WeightsMismatchError
from pmavae.files.latent_file import (
    LATENT_CHECKSUM_KEY,
    LatentHeader,
    check_weights,
    latents_to_bytes,
    read_latents,
    write_latents,
)
from pmavae.files.tensors import looks_like_tensor_file
from pmavae.latents import Latents, expected_shapes

GOLDEN = Path(__file__).parents[1] / "golden" / "latent-v1.safetensors"
HEADER = LatentHeader("test", "test-1", "0123456789abcdef" * 4, {"icc": "AAEC", "exif": "é"})
config_for = {"test": CONFIG}.__getitem__


def make_latents(height=20, width=33, logvars=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(1, *shape, generator=generator)
        for name, shape in expected_shapes(CONFIG, height, width).items()
        if logvars or not name.startswith("logvar")
    }
    return Latents(height=height, width=width, **tensors)


def make_file(change_header=lambda fields: None, change_tensors=lambda tensors: None, **metadata):
    """A latent file without checksum, changed on the way, as another program might write it."""
    tensors = {name: tensor[0].half() for name, tensor in make_latents().tensors().items()}
    fields = {
        "format": "latent",
        "version": 1,
        "preset": "test",
        "weights_id": "test-1",
        "weights_sha256": HEADER.weights_sha256,
        "width": 33,
        "height": 20,
        "padding": [0, 0, 15, 12],
        "picture": {},
    }
    change_header(fields)
    change_tensors(tensors)
    return safetensors_save(tensors, {"pmavae": json.dumps(fields)} | metadata)


def raw_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refusal(data):
    with pytest.raises(LatentFileError) as caught:
        read_latents(data, config_for, name="a.safetensors")
    message = str(caught.value)
    assert message.startswith("a.safetensors ") and "\n" not in message and len(message) < 300
    return message


def assert_equal(a, b):
    assert (a.height, a.width) == (b.height, b.width)
    assert a.tensors().keys() == b.tensors().keys()
    for name, tensor in a.tensors().items():
        assert torch.equal(tensor, b.tensors()[name]), name


@pytest.mark.parametrize("logvars", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_round_trip(tmp_path, dtype, logvars):
    latents = make_latents(logvars=logvars)
    write_latents(tmp_path / "a.safetensors", latents, HEADER, dtype)
    back, header = read_latents(tmp_path / "a.safetensors", config_for)
    assert header == HEADER
    assert back.z_base.shape == (1, 4, 2, 3) and back.z_base.dtype == torch.float32
    assert_equal(back, latents.to(dtype=dtype).to(dtype=torch.float32))


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 300), st.integers(16, 300), st.booleans())
def test_every_size_comes_back(height, width, logvars):
    latents = make_latents(height, width, logvars)
    assert_equal(read_latents(latents_to_bytes(latents, HEADER, torch.float32), config_for)[0], latents)


def test_golden_file_pins_the_format():
    expected = json.loads(GOLDEN.with_suffix(".json").read_text("utf-8"))
    latents, header = read_latents(GOLDEN, config_for)
    assert vars(header) == expected["header"]
    assert (latents.height, latents.width) == (expected["height"], expected["width"])
    assert {n: t.flatten().tolist() for n, t in latents.tensors().items()} == expected["tensors"]
    assert latents_to_bytes(latents, header) == GOLDEN.read_bytes()


def test_other_programs_can_read_and_write_it():
    latents = make_latents(logvars=True)
    tensors = safetensors_load(latents_to_bytes(latents, HEADER))
    assert tensors.keys() == latents.tensors().keys()
    assert torch.equal(tensors["logvar_detail"], latents.logvar_detail[0].half())
    back, _ = read_latents(make_file(format="pt"), config_for)
    assert_equal(back, make_latents().to(dtype=torch.float16).to(dtype=torch.float32))


@functools.cache
def intact():
    return latents_to_bytes(make_latents(logvars=True), HEADER)


def assert_refused_or_equal(data):
    try:
        latents, header = read_latents(data, config_for, name="a.safetensors")
    except LatentFileError as error:
        assert "a.safetensors" in str(error)
    else:
        assert header == HEADER
        assert_equal(latents, read_latents(intact(), config_for)[0])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(intact()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_harmless(position, change):
    data = bytearray(intact())
    data[position] ^= change
    assert_refused_or_equal(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(intact()) - 1), st.binary(max_size=4))
def test_a_truncated_or_longer_file_is_refused(length, tail):
    refusal(intact()[:length])
    if tail:
        assert "bytes follow its last tensor" in refusal(intact() + tail)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "insert", "remove", "repeat"]),
        st.integers(0, len(intact())),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


def edited(data, edits):
    """The bytes with pieces changed, put in, taken out or doubled, of the size of the piece that is given."""
    for kind, position, piece in edits:
        end = position + len(piece)
        middle = {"change": piece, "insert": piece + data[position:end], "remove": b""}
        data = data[:position] + middle.get(kind, data[position:end] * 2) + data[end:]
    return data


@settings(max_examples=200, deadline=None)
@given(EDITS)
def test_edited_bytes_are_refused_or_harmless(edits):
    assert_refused_or_equal(edited(intact(), edits))


@settings(max_examples=100, deadline=None)
@given(EDITS, st.integers(-3, 3))
def test_an_edited_header_is_refused_or_harmless_whatever_its_length_says(edits, error):
    data = intact()
    header = edited(data[8 : 8 + int.from_bytes(data[:8], "little")], edits)
    length = max(0, len(header) + error).to_bytes(8, "little")
    assert_refused_or_equal(length + header + data[8 + int.from_bytes(data[:8], "little") :])


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from(
        ["version", "preset", "weights_id", "weights_sha256", "width", "height", "padding", "picture", "new"]
    ),
)
def test_any_value_of_a_field_is_refused_or_valid(value, key):
    data = make_file(lambda fields: fields.update({key: value}))
    try:
        _, header = read_latents(data, config_for, name="a.safetensors")
    except LatentFileError as error:
        assert "a.safetensors" in str(error) and str(error).isprintable()
    else:
        assert getattr(header, key, value) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "written by a newer pmavae (latent format 2; this one reads 1): upgrade pmavae"),
        ({"version": 0}, "damaged: its latent format version is 0"),
        ({"version": True}, "damaged: its latent format version is True"),
        ({"format": "weights"}, "not a pmavae latent file (its format is 'weights')"),
        ({"preset": "huge"}, "is of preset huge, which this pmavae does not have: upgrade pmavae"),
        ({"weights_id": "\x1b[2J"}, r"its weights_id is not valid ('\x1b[2J')"),
        ({"weights_sha256": "0" * 63}, "its weights_sha256 is not valid"),
        ({"width": 34}, "its padding [0, 0, 15, 12] does not fit 34×20 px"),
        ({"width": 15}, "its width is not valid (15)"),
        ({"height": 2**20 + 1}, "its height is not valid (1048577)"),
        ({"height": 20.0}, "its height is not valid (20.0)"),
        ({"padding": [1, 0, 14, 12]}, "its padding [1, 0, 14, 12] does not fit 33×20 px"),
        ({"picture": {"icc": 1}}, "its picture is not valid"),
        ({"extra": 1}, "its header has an unknown field 'extra'"),
    ],
)
def test_wrong_header_is_refused(change, message):
    assert message in refusal(make_file(lambda fields: fields.update(change)))


def test_missing_field_is_refused():
    assert "its header lacks field 'width'" in refusal(make_file(lambda fields: fields.pop("width")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("z_style"), "tensor 'z_style' is missing"),
        (lambda t: t.update(other=torch.zeros(1)), "tensor 'other' is not expected"),
        (lambda t: t.update(logvar_base=t["z_base"].clone()), "tensor 'logvar_detail' is missing"),
        (
            lambda t: t.update(z_base=torch.zeros(4, 3, 2)),
            "does not fit preset test: z_base has the shape (4, 3, 2), a picture of 33×20 px has (4, 2, 3)",
        ),
        (lambda t: t["z_base"].view(-1)[3:4].fill_(torch.nan), "z_base has values that are not finite"),
        (lambda t: t["z_style"].fill_(-torch.inf), "z_style has values that are not finite"),
        (
            lambda t: t.update(z_style=t["z_style"].double()),
            "'z_style' of dtype 'F64'; only F16, BF16 and F32",
        ),
    ],
)
def test_wrong_tensors_are_refused(change, message):
    assert message in refusal(make_file(change_tensors=change))


TENSOR = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x02\0", "is not a safetensors file"),
        (b"\xff\xd8\xff\xe0" + b"JFIF" * 100, "is not a safetensors file"),
        ((2**40).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        ((100).to_bytes(8, "little") + b"{}", "is truncated: 10 bytes are there, its header alone needs 108"),
        (raw_file(b"{nonsense}"), "its header is not valid JSON"),
        (raw_file(b'{"a":NaN}'), "its header is not valid JSON"),
        (raw_file(b'{"a":1,"a":1}'), "its header is not valid JSON"),
        (raw_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "its header is not valid JSON"),
        (raw_file(b'{"\xff":1}'), "its header is not valid JSON"),
        (raw_file({}), "is a safetensors file but not a pmavae latent file"),
        (raw_file({"__metadata__": {"a": 1}}), "its metadata is not a map of strings"),
        (raw_file({"__metadata__": {"pmavae": "{"}}), "its pmavae header is not valid JSON"),
        (raw_file({"__metadata__": {"pmavae": "[]"}}), "not a pmavae latent file"),
        (raw_file({"a": 1}), "the description of tensor 'a' is not valid"),
        (raw_file({"a": TENSOR | {"dtype": "I64"}}), "'a' of dtype 'I64'; only F16, BF16 and F32 are read"),
        (raw_file({"a": TENSOR | {"dtype": []}}), "of dtype []"),
        (raw_file({"a": TENSOR | {"shape": [-2]}}), "the shape of tensor 'a' is not valid"),
        (raw_file({"a": TENSOR | {"shape": [0, 2**70]}}), "the shape of tensor 'a' is not valid"),
        (raw_file({"a": TENSOR | {"shape": [1] * 9}}), "the shape of tensor 'a' is not valid"),
        (raw_file({"a": TENSOR | {"data_offsets": [4]}}), "the offsets of tensor 'a' are not valid"),
        (raw_file({"a": TENSOR | {"shape": [2**60]}}), "does not have the bytes that its shape needs"),
        (raw_file({"a": TENSOR, "b": TENSOR}, b"1234"), "'b' does not start where the one before it ends"),
        (raw_file({"a": TENSOR | {"data_offsets": [2, 6]}}, b"123456"), "'a' does not start where"),
        (raw_file({"a": TENSOR}, b"123"), "is truncated: "),
        (raw_file({"a": TENSOR}, b"12345"), "1 bytes follow its last tensor"),
    ],
)
def test_hostile_bytes_are_refused(data, message):
    assert message in refusal(data)


def test_a_huge_tensor_takes_no_memory(tmp_path):
    path = tmp_path / "sparse.safetensors"
    size = 2**42  # 4 TiB
    header = raw_file({"a": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}})
    path.write_bytes(header)
    try:
        os.truncate(path, len(header) + size)
    except OSError:
        pytest.skip("this file system has no files of 4 TiB")
    with pytest.raises(LatentFileError, match="not a pmavae latent file"):
        read_latents(path, config_for)


def test_a_changed_value_fails_the_checksum():
    data = bytearray(intact())
    data[-1] ^= 1
    assert "is damaged: its checksum does not match" in refusal(bytes(data))
    assert "checksum" in refusal(make_file(**{LATENT_CHECKSUM_KEY: "00000000"}))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(LatentFileError, match=r"missing\.safetensors cannot be read: No such file"):
        read_latents(tmp_path / "missing.safetensors", config_for)
    with pytest.raises(LatentFileError, match="cannot be read: Is a directory"):
        read_latents(tmp_path, config_for)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read():
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb") as stream:
        stream.write(intact())
    try:
        latents, _ = read_latents(f"/dev/fd/{read_end}", config_for)
    finally:
        os.close(read_end)
    assert_equal(latents, read_latents(intact(), config_for)[0])


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (
            make_latents().replace(z_base=torch.full((1, 4, 2, 3), 7e4)),
            "z_base has values that are not finite",
        ),
        (make_latents().replace(z_style=torch.full((1, 16, 1, 1), torch.nan)), "z_style has values"),
        (
            make_latents().replace(z_base=torch.zeros(2, 4, 2, 3)),
            "holds one picture, but z_base has the shape",
        ),
        (make_latents().replace(width=8), "its width is not valid"),
    ],
)
def test_latents_that_no_file_can_hold_are_refused(tmp_path, latents, message):
    path = tmp_path / "a.safetensors"
    with pytest.raises(LatentFileError, match=r"a\.safetensors was not written") as caught:
        write_latents(path, latents, HEADER)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_picture_metadata_beyond_the_header_is_refused():
    header = LatentHeader("test", "test-1", "", {"icc": "A" * 2**20})
    with pytest.raises(LatentFileError, match=r"metadata \(1048576 characters\): strip it first"):
        latents_to_bytes(make_latents(), header)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_text("old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(LatentFileError, match="cannot be written: No space left on device"):
        write_latents(path, make_latents(), HEADER)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(LatentFileError, match=r"a\.safetensors cannot be written: No such file or directory"):
        write_latents(tmp_path / "no" / "a.safetensors", make_latents(), HEADER)


def test_writing_through_a_link_keeps_the_link(tmp_path):
    link, target = tmp_path / "link.safetensors", tmp_path / "target.safetensors"
    link.symlink_to(target)
    write_latents(link, make_latents(logvars=True), HEADER)
    assert link.is_symlink() and target.read_bytes() == intact()


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs /dev/null")
def test_a_device_is_written_to_and_not_replaced():
    write_latents("/dev/null", make_latents(), HEADER)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_the_same_latents_give_the_same_bytes():
    shuffled = LatentHeader("test", "test-1", HEADER.weights_sha256, {"exif": "é", "icc": "AAEC"})
    assert latents_to_bytes(make_latents(logvars=True), shuffled) == intact()


def test_other_weights_are_refused_by_name():
    check_weights(HEADER, "test-1", HEADER.weights_sha256, "a.safetensors")
    with pytest.raises(WeightsMismatchError) as caught:
        check_weights(HEADER, "test-2", "f" * 64, "a.safetensors")
    assert str(caught.value) == (
        "a.safetensors was made with weights test-1 (01234567), but test-2 (ffffffff) are loaded: "
        "load the former, or encode the picture again"
    )
    with pytest.raises(WeightsMismatchError):
        check_weights(HEADER, "test-1", "f" * 64, "a.safetensors")


def test_sniffing_tells_latents_from_pictures():
    assert looks_like_tensor_file(intact()[:9]) and looks_like_tensor_file(intact())
    for other in (b"", b"\x89PNG\r\n\x1a\n\0", b"\xff\xd8\xff\xe0\0\x10JFIF", b"{}", b"RIFF\0\0\0\0{"):
        assert not looks_like_tensor_file(other)
