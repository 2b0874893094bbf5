"""Weights files that are hostile, of every kind: refused in one sentence, before a tensor has memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from conftest import Command, picture
from small_weights import KINDS, Parts, Smooth, raw, write

from pmavae.errors import WeightsError
from pmavae.files import tensors
from pmavae.network_configs import NetworkConfig
from pmavae.pretrained.manifest import WeightsEntry
from pmavae.pretrained.network import TaskNetwork
from pmavae.pretrained.weights import MAX_BYTES, load_weights, save_weights

Change = Callable[[Parts], Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of a sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    return {kind: write(kind, folder / kind).read_bytes() for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Counting:
    """A file that counts the bytes that are read, and the times that it is opened."""

    def __init__(self) -> None:
        self.opened, self.count, self.seen = 0, 0, b""
        self.after_header: Callable[[], Any] = lambda: None

    def open(self, path: Path, pipes: bool) -> BinaryIO:
        self.opened += 1
        outer, stream = self, ORIGINAL_OPEN(path, pipes)

        class Stream:
            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *error: Any) -> None:
                stream.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(stream, name)

            def read(self, size: int = -1) -> bytes:
                data = stream.read(size)
                outer.count += len(data)
                outer.seen += data
                return data

            def readinto(self, view: memoryview) -> int:
                if outer.after_header is not None:
                    outer.after_header()
                    outer.after_header = None
                size: int = stream.readinto(view)  # type: ignore[attr-defined]
                outer.count += size
                outer.seen += bytes(view)
                return size

        return Stream()  # type: ignore[return-value]


ORIGINAL_OPEN = tensors._open


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    counting = Counting()
    monkeypatch.setattr(tensors, "_open", counting.open)
    yield counting


def refusal(kind: str, path: Path) -> str:
    """The sentence with which a file is refused, without its name."""
    with pytest.raises(WeightsError) as caught:
        KINDS[kind].load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and message.isprintable() and len(message) - len(str(path)) < 400
    return message.removeprefix(f"{path} ")


def set_tensor(**fields: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.tensors[parts.last].update(fields)

    return change


def overlapping(parts: Parts) -> None:
    """The second tensor starts at the first one's place."""
    names = sorted(parts.tensors, key=lambda name: parts.tensors[name]["data_offsets"])
    begin, end = parts.tensors[names[1]]["data_offsets"]
    parts.tensors[names[1]]["data_offsets"] = [0, end - begin]


def gapped(parts: Parts) -> None:
    begin, end = parts.tensors[parts.last]["data_offsets"]
    parts.tensors[parts.last]["data_offsets"] = [begin + 8, end + 8]
    parts.data += b"\0" * 8


def reshaped(parts: Parts) -> None:
    parts.tensors[parts.last]["shape"].append(1)


def replaced(dtype: str, item: int) -> Change:
    """The last tensor of another dtype, and the bytes for it."""

    def change(parts: Parts) -> None:
        tensor = parts.tensors[parts.last]
        begin, end = tensor["data_offsets"]
        size = (end - begin) // {"F16": 2, "F32": 4}[tensor["dtype"]] * item
        tensor |= {"dtype": dtype, "data_offsets": [begin, begin + size]}
        parts.data = parts.data[:begin] + b"\0" * size

    return change


def one_more(parts: Parts) -> None:
    end = len(parts.data)
    parts.tensors["zzz.extra"] = {"dtype": "F16", "shape": [1], "data_offsets": [end, end + 2]}
    parts.data += b"\0\0"


def one_less(parts: Parts) -> None:
    begin = parts.tensors.pop(parts.last)["data_offsets"][0]
    parts.data = parts.data[:begin]


def crowd(parts: Parts) -> None:
    """As many tensors as a header has room for."""
    end = len(parts.data)
    for number in range(12_000):
        place = [end + 2 * number, end + 2 * number + 2]
        parts.tensors[f"x{number}"] = {"dtype": "F16", "shape": [1], "data_offsets": place}
    parts.data += b"\0\0" * 12_000


def header(**fields: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.header.update(fields)

    return change


def config(**fields: Any) -> Change:
    def change(parts: Parts) -> None:
        parts.header["config"].update(fields)

    return change


def metadata(**fields: str) -> Change:
    def change(parts: Parts) -> None:
        parts.metadata.update(fields)

    return change


def edited(change: Callable[[str, bytes], bytes]) -> Change:
    """A file made of the text of the header and the data."""
    return lambda parts: change(parts.text(), parts.data)


HUGE = 2**38  # half a terabyte of fp16
DAMAGES: dict[str, tuple[Change, str]] = {
    "claims a tensor that is not there": (
        lambda p: set_tensor(
            dtype="F16", shape=[HUGE], data_offsets=[b := p.tensors[p.last]["data_offsets"][0], b + 2 * HUGE]
        )(p),
        "is truncated",
    ),
    "shape beyond 64 bits": (set_tensor(shape=[2**62, 2**62]), "does not have the bytes that its shape"),
    "numbers of 4000 digits": (
        set_tensor(shape=[10**4000], data_offsets=[0, 2 * 10**4000]),
        "is not valid",
    ),
    "overlapping offsets": (overlapping, "does not start where the one before it ends"),
    "a gap": (gapped, "does not start where the one before it ends"),
    "another shape": (reshaped, "does not fit preset"),
    "an unknown tensor": (one_more, "tensor 'zzz.extra' is not known to it"),
    "a missing tensor": (one_less, "is missing"),
    "thousands of tensors": (crowd, "tensor 'x0' is not known to it"),
    "dtype F64": (replaced("F64", 8), "of dtype 'F64'; only F16, BF16 and F32 are read"),
    "dtype I64": (replaced("I64", 8), "of dtype 'I64'; only F16, BF16 and F32 are read"),
    "dtype in lower case": (replaced("f16", 2), "of dtype 'f16'; only F16, BF16 and F32 are read"),
    "an empty tensor": (set_tensor(shape=[0], data_offsets=[0, 0]), "is not valid"),
    "a field beside the shape": (set_tensor(more=1), "the description of tensor"),
    "unknown metadata": (metadata(more="x"), "its metadata has an unknown field 'more'"),
    "unknown header field": (header(more=1), "its header is not valid"),
    "unknown configuration field": (config(heads=4), "heads"),
    "a configuration over several lines": (config(**{"a\nb\x1b[2J": 4}), "a b?[2J"),
    "another architecture": (header(architecture=2), "is of architecture version 2, this pmavae has 1"),
    "an older architecture": (header(architecture=0), "is of architecture version 0, this pmavae has 1"),
    "architecture true": (header(architecture=True), "is of architecture version True, this pmavae has 1"),
    "no architecture": (
        lambda p: p.header.pop("architecture") and None,
        "is of architecture version None, this pmavae has 1",
    ),
    "a list of tasks": (config(task=["base"]), "is damaged: its configuration has task"),
    "keys twice": (
        edited(lambda text, data: raw(text.replace("{", '{"__metadata__":{},', 1).encode(), data)),
        "its header is not valid JSON",
    ),
    "deep nesting": (edited(lambda text, data: raw(b'{"a":' + b"[" * 900_000, data)), "is not valid JSON"),
    "a checksum of nine digits": (metadata(pmavae_file_crc32="0" * 9), "its checksum is not valid"),
    "NaN in the header": (
        edited(lambda text, data: raw(text.replace('"shape": [', '"shape": [NaN, ', 1).encode(), data)),
        "is not valid JSON",
    ),
    "not UTF-8": (edited(lambda text, data: raw(b'{"\xff":1}', data)), "is not valid JSON"),
    "one byte less": (edited(lambda text, data: raw(text.encode(), data[:-1])), "is truncated"),
    "one byte more": (edited(lambda text, data: raw(text.encode(), data + b"\0")), "1 bytes follow its last"),
    "header alone": (edited(lambda text, data: raw(text.encode())), "is truncated"),
    "half a header": (edited(lambda text, data: raw(text.encode())[:50]), "is truncated"),
    "nothing": (edited(lambda text, data: b""), "is empty"),
    "a pickle": (edited(lambda text, data: b"\x80\x02}q\x00."), "with pmavae weights import"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_by_name_before_a_tensor_is_read(
    sound: dict[str, bytes], tmp_path: Path, kind: str, damage: str, reading: Counting
) -> None:
    change, message = DAMAGES[damage]
    parts = Parts.of(sound[kind])
    data = change(parts)
    data = data if isinstance(data, bytes) else parts.bytes()
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    assert message in refusal(kind, path)
    assert reading.count <= 8 + int.from_bytes(data[:8], "little")
    assert reading.opened == 1


def test_without_damage_it_is_read(sound: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    """Also as an older file, which has no checksum, and behind a link; all tensors are in memory."""
    expected = KINDS[kind].make().state_dict()
    path, old, link = (tmp_path / name for name in ("w.safetensors", "old.safetensors", "link.safetensors"))
    path.write_bytes(sound[kind])
    old.write_bytes(Parts.of(sound[kind]).bytes())
    link.symlink_to(path)
    for place in (path, old, link):
        model = KINDS[kind].load(place)
        assert not model.training and model.weights_id == f"{kind}-test"
        assert model.weights_sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
        state = model.state_dict()
        assert state.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(state[name], tensor.half().to(tensor.dtype)), name
            assert (state[name].dtype, state[name].device) == (tensor.dtype, tensor.device)
        assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def test_a_changed_value_fails_the_checksum(sound: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(sound[kind][:-2] + bytes([sound[kind][-2] ^ 1]) + sound[kind][-1:])
    assert refusal(kind, path).startswith("is damaged: its checksum does not match; copy it again")


@pytest.mark.parametrize("attack", ["many", "wide", "wrong"])
def test_a_configuration_of_another_size_makes_no_network(
    sound: dict[str, bytes], tmp_path: Path, kind: str, attack: str, reading: Counting
) -> None:
    parts = Parts.of(sound[kind])
    parts.header["config"].update(getattr(KINDS[kind], attack))
    path = tmp_path / "w.safetensors"
    path.write_bytes(parts.bytes())
    reasons = {
        "many": "is damaged: its configuration has ",
        "wide": "does not fit preset",
        "wrong": "its configuration has "
        if kind in ("autoencoder", "texture-vary", "plugin")
        else "does not fit",
    }
    assert reasons[attack] in refusal(kind, path)
    assert reading.count <= path.stat().st_size - len(parts.data)


@pytest.mark.parametrize("value", [b"\x00\x7e", b"\x00\x7c", b"\x00\xfc"], ids=["nan", "inf", "-inf"])
def test_values_that_are_not_finite_are_refused(
    sound: dict[str, bytes], tmp_path: Path, kind: str, value: bytes
) -> None:
    parts = Parts.of(sound[kind])
    halves = [name for name, tensor in parts.tensors.items() if tensor["dtype"] == "F16"]
    place = parts.tensors[halves[-1]]["data_offsets"][0]
    parts.data = parts.data[:place] + value + parts.data[place + 2 :]
    path = tmp_path / "w.safetensors"
    path.write_bytes(parts.bytes())
    assert refusal(kind, path).startswith(f"is damaged: {halves[-1]!r} has values that are not finite")


def test_a_file_of_half_a_terabyte_is_refused(
    sound: dict[str, bytes], tmp_path: Path, kind: str, reading: Counting
) -> None:
    parts = Parts.of(sound[kind])
    begin = parts.tensors[parts.last]["data_offsets"][0]
    parts.tensors[parts.last].update(dtype="F16", shape=[HUGE], data_offsets=[begin, begin + 2 * HUGE])
    path = tmp_path / "w.safetensors"
    sparse(path, parts.bytes()[: -len(parts.data)], begin + 2 * HUGE)
    assert f"has {begin + 2 * HUGE} bytes of tensors; at most {MAX_BYTES} are read" in refusal(kind, path)
    assert reading.count < 2**20


def test_a_header_of_99_megabytes_is_not_read(tmp_path: Path, kind: str, reading: Counting) -> None:
    path = tmp_path / "w.safetensors"
    sparse(path, (99_000_000).to_bytes(8, "little") + b"{", 99_000_000)
    assert "has a header of 99000000 bytes; at most 1048576 are read" in refusal(kind, path)
    assert reading.count == 9


def sparse(path: Path, start: bytes, more: int) -> None:
    """A file of these bytes and `more` that take no room on the disk."""
    path.write_bytes(start)
    try:
        os.truncate(path, len(start) + more)
    except OSError:
        pytest.skip("this file system has no files of that size")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("pipe", "folder", "dangling", "loop")}
    os.mkfifo(places["pipe"])
    places["folder"].mkdir()
    places["dangling"].symlink_to(tmp_path / "gone")
    places["loop"].symlink_to(places["loop"])
    said: dict[Path, str] = {}

    def load() -> None:
        for path in (*places.values(), Path("/dev/zero")):
            try:
                load_weights(path)
            except WeightsError as error:
                said[path] = str(error)

    waiting = threading.Thread(target=load, daemon=True)  # or a pipe without a writer would hold up the tests
    waiting.start()
    waiting.join(20)
    assert len(said) == len(places) + 1
    for path, message in said.items():
        assert message.startswith(f"{path} is a pipe or a device") or message.startswith(
            f"{path} cannot be read: "
        )
    with pytest.raises(WeightsError, match="there are no weights"):
        TaskNetwork.from_pretrained(places["pipe"], "smooth", lambda settings: Smooth(**settings))


def test_hash_and_values_are_of_one_reading(
    sound: dict[str, bytes], tmp_path: Path, kind: str, reading: Counting
) -> None:
    """A file that is replaced or written to while it is read is refused, or is what it was."""
    path = tmp_path / "w.safetensors"
    parts = Parts.of(sound[kind])
    old = parts.bytes()
    begin = len(old) - len(parts.data)
    path.write_bytes(old)

    def overwrite() -> None:
        with path.open("r+b") as stream:
            stream.seek(begin)
            stream.write(b"\0" * len(parts.data))

    reading.after_header = overwrite
    loaded = load_weights(path)
    assert reading.opened == 1
    assert loaded.sha256 == hashlib.sha256(reading.seen).hexdigest()
    path.write_bytes(old)
    reading.after_header = lambda: other.replace(path)
    other = tmp_path / "other"
    other.write_bytes(b"other")
    assert load_weights(path).sha256 == hashlib.sha256(old).hexdigest()


# Those whose small file is larger than a buffer; a smaller one is read at once, as it was.
LARGER = ("autoencoder", "denoise", "upscale", "texture-vary")


@pytest.mark.parametrize("kind", LARGER)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path, size: os.truncate(path, size - 1), "is truncated: it became shorter while it was read"),
        (lambda path, size: os.truncate(path, size + 1), "is damaged: it became longer while it was read"),
    ],
)
def test_a_file_that_changes_its_size_while_it_is_read_is_refused(
    sound: dict[str, bytes], tmp_path: Path, kind: str, reading: Counting, change: Any, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(sound[kind])
    reading.after_header = lambda: change(path, len(sound[kind]))
    with pytest.raises(WeightsError, match=message):
        load_weights(path)


@pytest.mark.parametrize("kind", LARGER)
def test_the_hash_of_the_manifest_is_asked_for_the_bytes_that_were_read(
    sound: dict[str, bytes], tmp_path: Path, kind: str, reading: Counting
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(sound[kind])
    values = {field.name: None for field in dataclasses.fields(WeightsEntry)}
    digest = hashlib.sha256(sound[kind]).hexdigest()
    entry = WeightsEntry(**values | {"id": "x-1", "sha256": digest})  # type: ignore[arg-type]
    assert load_weights(path, entry).sha256 == digest

    def overwrite() -> None:
        path.write_bytes(sound[kind][:-1] + bytes([sound[kind][-1] ^ 1]))

    reading.after_header = overwrite
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged or was changed: its SHA-256 is"):
        load_weights(path, entry)


def test_a_pytorch_file_is_refused_with_the_command_that_reads_it(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpickle(*args: Any, **options: Any) -> None:
        raise AssertionError("a pickle was opened")

    picture().save("a.png")
    for name in ("model.pth", "pytorch_model.bin", "last.ckpt"):
        torch.save({"weight": torch.zeros(2)}, name)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", unpickle)
        for task in ("encode", "denoise", "texture-vary"):
            for name in ("model.pth", "pytorch_model.bin", "last.ckpt"):
                result = pmavae(task, "a.png", "--weights", name)
                assert result.status == 1 and len(result.err.splitlines()) == 1
                assert f"{name} is not a safetensors file" in result.err
                assert "pmavae weights import" in result.err


def test_names_that_would_not_be_read_again_are_not_written(tmp_path: Path) -> None:
    state = {f"{number:0100}": torch.zeros(1) for number in range(10_000)}
    path = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match=r"w\.safetensors was not written: a header of .* shorter names"):
        save_weights(path, state, NetworkConfig("test", "smooth"), "x")
    assert not path.exists()


def test_a_network_that_needs_values_to_be_made_is_made_with_them(
    sound: dict[str, bytes], tmp_path: Path
) -> None:
    """And one that cannot be made is refused as such."""

    def build(settings: Any) -> torch.nn.Module:
        made = Smooth(**settings)
        made.window *= torch.rand(3).sum().item()
        return made

    def fail(settings: Any) -> torch.nn.Module:
        raise KeyError("width")

    path = tmp_path / "w.safetensors"
    path.write_bytes(sound["plugin"])
    expected = KINDS["plugin"].make().state_dict()
    model = TaskNetwork.from_pretrained(path, "smooth", build)
    assert torch.equal(model.state_dict()["conv.weight"], expected["conv.weight"].half().float())
    with pytest.raises(
        WeightsError, match=r"w\.safetensors has settings from which .* \(KeyError: 'width'\)"
    ):
        TaskNetwork.from_pretrained(path, "smooth", fail)


def test_info_reads_no_tensor_of_a_file_that_fits_no_network(
    sound: dict[str, bytes], here: Path, pmavae: Command, kind: str, reading: Counting
) -> None:
    (here / "sound.safetensors").write_bytes(sound[kind])
    facts = json.loads(pmavae("info", "sound.safetensors", "--json").lines[0])
    assert (facts["kind"], facts["id"]) == ("weights", f"{kind}-test")
    parts = Parts.of(sound[kind])
    reshaped(parts)
    (here / "w.safetensors").write_bytes(parts.bytes())
    reading.count = 0
    result = pmavae("info", "w.safetensors")
    if kind == "plugin":  # only its task knows its shapes
        assert result.status == 0
    else:
        assert result.status == 1 and "w.safetensors does not fit preset" in result.err
        assert reading.count <= 2 * (len(parts.bytes()) - len(parts.data))  # once to see what it is


CHILD = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
known = set(sys.modules)
from small_weights import KINDS
from pmavae.errors import WeightsError

folder = Path(sys.argv[2])
for kind in KINDS:
    KINDS[kind].load(folder / kind / "sound")
modules = sorted(name for name in set(sys.modules) - known if name.split(".")[0] == "sympy")
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, size + 2**28))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = {}
for kind in KINDS:
    for path in sorted((folder / kind).iterdir()):
        try:
            KINDS[kind].load(path)
        except WeightsError as error:
            said[f"{kind}/{path.name}"] = str(error)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"said": said, "grown": after - before, "modules": modules}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_stays_as_it_is(sound: dict[str, bytes], tmp_path: Path) -> None:
    """Every kind, where 256 MB more may be taken: terabytes by shapes, by configuration and by blocks."""
    for kind, data in sound.items():
        folder = tmp_path / kind
        folder.mkdir()
        (folder / "sound").write_bytes(data)
        for attack in ("many", "wide"):
            parts = Parts.of(data)
            parts.header["config"].update(getattr(KINDS[kind], attack))
            (folder / attack).write_bytes(parts.bytes())
        parts = Parts.of(data)
        begin = parts.tensors[parts.last]["data_offsets"][0]
        parts.tensors[parts.last].update(dtype="F16", shape=[HUGE], data_offsets=[begin, begin + 2 * HUGE])
        sparse(folder / "huge", parts.bytes()[: -len(parts.data)], begin + 2 * HUGE)
        size = 2**30 - 2**20  # within the limit of a file, beyond that of the process
        parts.tensors[parts.last].update(shape=[size // 2], data_offsets=[begin, begin + size])
        sparse(folder / "large", parts.bytes()[: -len(parts.data)], begin + size)
        sparse(folder / "header", (99_000_000).to_bytes(8, "little") + b"{", 99_000_000)
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["said"]) == 5 * len(KINDS)
    reasons = {
        "many": "is damaged: its configuration has ",
        "wide": "does not fit preset",
        "huge": f"bytes of tensors; at most {MAX_BYTES}",
        "large": "does not fit preset",
        "header": "has a header of 99000000 bytes",
    }
    for place, message in told["said"].items():
        reason = reasons[place.split("/")[1]]
        assert message.startswith(str(tmp_path / place)) and reason in message, message
    assert told["grown"] < 32 * 1024  # KiB
    assert told["modules"] == []  # what arithmetic on the meta device would load, for a second or two
