"""Whatever files are called, they are read and written under that name, and a plan is made once."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, picture
from evil_files import encoded
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cli_plan_checks import empty
from test_cli_planning import TASKS, touch

from pmavae_cli.options import RunOptions
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.jobs import Refused
from pmavae_cli.run.plan import make_plan

# Names as a disk has them: bytes, that may be no UTF-8, but no separator.
BYTES = st.binary(min_size=1, max_size=60).filter(lambda name: not set(b"/\0") & set(name))
TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=50)
SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def weights_of_denoise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from small_restorers import saved, untrained

    return saved(untrained("denoise"), tmp_path_factory.mktemp("network"), "test-denoise")


@settings(max_examples=25, **SETTINGS)
@given(name=BYTES | TEXT.map(os.fsencode))
@example(name=b"--overwrite")
@example(name=b"-")
@example(name=b" a  b ")
@example(name=b"line\nbreak\r\x1b[31m")
@example(name=b"\xff\xfe no text \x80")
@example(name="e\N{COMBINING ACUTE ACCENT}\N{RIGHT-TO-LEFT OVERRIDE}漢字🦊".encode())
@example(name=b"*?[a]{b}~$HOME %s {0} 'a' \"b\" :2")
@example(name=b"x" * 251)
@example(name="é".encode() * 125)
def test_a_file_of_any_name_is_done_under_that_name(
    pmavae: Command, here: Path, weights_of_denoise: Path, name: bytes
) -> None:
    empty(here)
    Path("in").mkdir()
    Path("bad").mkdir()
    good, bad = (f"{folder}/{os.fsdecode(name)}.png" for folder in ("in", "bad"))
    Path(good).write_bytes(encoded(picture((16, 16)), "PNG"))
    Path(bad).write_bytes(b"no picture")
    options = ["--strength", "0", "--weights", str(weights_of_denoise)]
    result = pmavae("denoise", "-o", "out/", *options, "--", good)
    assert (result.status, result.err) == (0, "")
    assert result.out == b"out/" + name + b".png\n"
    assert [os.fsencode(path.name) for path in Path("out").iterdir()] == [name + b".png"]
    # The name is said in one line that changes nothing on the screen, and in JSON that anything can read.
    result = pmavae("denoise", "-o", "out-2/", *options, "--json", "--", bad)
    assert result.status == 1
    assert result.err.endswith("\n") and result.err[:-1].isprintable()
    assert result.err.startswith("pmavae: bad/")
    (row,) = map(json.loads, result.lines)
    assert (row["input"], row["status"]) == (bad, "failed")
    assert not Path("out-2").exists()


@settings(max_examples=60, **SETTINGS)
@given(
    files=st.lists(
        st.tuples(
            st.sampled_from(["", "a/", "A/", "a/b/", ".hidden/"]),
            st.sampled_from(["p1", "P1", "p2", "é", "x.decode", "decode", "p1.style", "x-1"]),
            st.sampled_from([".png", ".jpg", ".TIF", ".safetensors", ".txt"]),
        ).map("".join),
        min_size=1,
        max_size=10,
        unique=True,
    ),
    task=st.sampled_from(["decode", "encode"]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "output": st.sampled_from(["out", "out/", "in", "in/a", "new/er"]),
            "format": st.sampled_from(["png", "jpg", "safetensors"]),
            "recursive": st.booleans(),
        },
    ),
    count=st.integers(1, 2),
    others=st.sampled_from([[], ["in/p1.png"], ["out/p1.png"]]),
)
def test_a_plan_replaces_nothing_and_a_second_one_has_nothing_to_do(
    here: Path, files: list[str], task: str, options: dict[str, Any], count: int, others: list[str]
) -> None:
    empty(here)
    touch(*(f"in/{name}" for name in files), *others)

    def planned(**more: bool) -> list[tuple[str, str, bool]]:
        sources = [Source(name, Path(name)) for name in others]
        made = make_plan(TASKS[task], count, ["in"], sources, RunOptions(**options, **more))
        return [(job.source.name, o.name, o.exists) for job in made.jobs for o in job.outputs]

    try:
        first = planned(skip_existing=True)
    except Refused:
        return
    outputs = [output for _, output, _ in first]
    new = [output for _, output, exists in first if not exists]
    assert len({os.path.realpath(output) for output in outputs}) == len(outputs)
    assert not {os.path.realpath(output) for output in outputs} & {
        os.path.realpath(name) for name, _, _ in first
    }
    assert not any(Path(output).exists() for output in new)
    touch(*new)
    if options.get("output") == "in":
        # An output of the first run cannot be told from a picture that was there: better refused than lost.
        with suppress(Refused):
            assert [job[:2] for job in planned(skip_existing=True)] == [job[:2] for job in first]
        return
    assert planned(skip_existing=True) == [(source, output, True) for source, output, _ in first]
    if first:
        with pytest.raises(Refused, match="use --overwrite to replace it, or --skip-existing to keep it"):
            planned()
