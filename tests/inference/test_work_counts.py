"""The work of encoding and decoding, counted: operators, bytes and copies, whatever the machine's mood.

To renew BOUNDS after a change that is meant, run this file with `-s -k counted`: it prints what it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pmavae import PMAVAE, PRESETS
from pmavae.inference import fused
from pmavae.model import ParallelMambaBlock
from pmavae.scan import selective

SIDE = 128
COPIES = ("aten.copy_", "aten.clone", "aten._to_copy", "aten.contiguous")


class Work(TorchDispatchMode):
    """What is called, and how many bytes it reads and writes; views cost nothing and are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes = 0
        self.allocated = 0
        self.copied: list[tuple[str, torch.Size]] = []
        self.reordered: list[torch.Size] = []  # what oneDNN copies into channels-last memory, and back

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        storages = {x.untyped_storage().data_ptr() for x in given}
        fresh = [x for x in made if x.untyped_storage().data_ptr() not in storages]
        changes = func._schema.is_mutable
        if not fresh and not changes:
            return result
        name = str(func).rsplit(".", 1)[0]
        size = sum(x.numel() * x.element_size() for x in (*given, *made))
        self.calls[name] += 1
        self.bytes += size
        self.allocated += sum(x.numel() * x.element_size() for x in fresh)
        if "convolution" in name and not args[0].is_contiguous(memory_format=torch.channels_last):
            self.reordered.append(args[0].shape)
        if name in COPIES:
            self.copied += [(name, x.shape) for x in made]
        return result


@pytest.fixture(scope="module")
def model() -> PMAVAE:
    torch.manual_seed(0)
    return PMAVAE(PRESETS["tiny"]).eval()


def counted(function: Callable[[], object]) -> Work:
    function()  # what is built once is not counted
    with Work() as work:
        function()
    return work


def encoding(model: PMAVAE) -> Callable[[], object]:
    return lambda: model.encode(torch.zeros(1, 3, SIDE, SIDE) + 0.25)


def decoding(model: PMAVAE) -> Callable[[], object]:
    latents = model.encode(torch.rand(1, 3, SIDE, SIDE))
    return lambda: model.decode(latents)


TASKS = {"encode": encoding, "decode": decoding}


# Calls, bytes and new bytes a pixel, each with a tenth of room.
BOUNDS = {"encode": (400, 1600, 585), "decode": (320, 3720, 1405)}


@pytest.mark.skipif(fused.fused() is None, reason="this torch has no fused convolutions")
@pytest.mark.parametrize("task", BOUNDS)
def test_the_counted_work_does_not_grow(model: PMAVAE, task: str) -> None:
    work = counted(TASKS[task](model))
    found = (work.calls.total(), work.bytes / SIDE**2, work.allocated / SIDE**2)
    print(task, [round(number) for number in found], work.calls.most_common(12))
    for number, bound, what in zip(found, BOUNDS[task], ("calls", "bytes", "new bytes"), strict=True):
        assert number <= bound, (
            f"{task}: {number:.0f} {what} (a pixel), {bound} were enough: find out what was added "
            f"({work.calls.most_common(12)}), or, where it is meant, renew BOUNDS"
        )


@pytest.mark.skipif(fused.fused() is None, reason="this torch has no fused convolutions")
@pytest.mark.parametrize("task", BOUNDS)
def test_nothing_copies_a_feature_map_for_its_layout_alone(model: PMAVAE, task: str) -> None:
    work = counted(TASKS[task](model))
    smallest = SIDE**2 // 64 * 64  # numbers of a map at the stride 8
    large = [(name, shape) for name, shape in work.copied if shape.numel() >= smallest]
    picture = torch.Size((1, 3, SIDE, SIDE))  # which comes as its owner has it
    assert [(name, shape) for name, shape in large if shape != picture] == []
    assert len(large) <= 1
    assert [shape for shape in work.reordered if shape.numel() >= smallest and shape != picture] == []


@pytest.fixture(autouse=True)
def _as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of these tests are small for their speed, and stand for large ones."""
    monkeypatch.setattr(selective, "SMALL_SIDE", 0)


@pytest.mark.skipif(
    selective.compiled_scan("selective_scan") is None, reason="there is no compiled scan here"
)
@pytest.mark.parametrize("task", BOUNDS)
def test_the_scan_is_one_kernel_a_direction_and_block(
    model: PMAVAE, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pmavae.scan import selective_cpu

    function = TASKS[task](model)
    calls = []
    kernel = selective_cpu._add_direction

    def spy(*arguments: Any) -> None:
        calls.append(arguments)
        kernel(*arguments)

    monkeypatch.setattr(selective_cpu, "_add_direction", spy)
    function()
    network = model.encoder if task == "encode" else model.decoder
    blocks = [module for module in network.modules() if isinstance(module, ParallelMambaBlock)]
    assert len(calls) == 4 * len(blocks)


def test_a_strip_needs_no_more_work_than_the_whole(model: PMAVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of rows repeat a row above and below each, no more."""
    whole = counted(decoding(model))
    monkeypatch.setattr(fused, "STRIP_BYTES", 64 * 4 * (SIDE // 2) * 16)  # of stage 2, 16 rows
    strips = counted(decoding(model))
    assert strips.calls["mkldnn._convolution_pointwise"] > whole.calls["mkldnn._convolution_pointwise"]
    assert strips.bytes < 1.6 * whole.bytes
