"""What is found before a model is loaded: names, folders and disks that an output does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Command, picture
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cli_planning import TASKS, plan, touch

from pmavae_cli.options import RunOptions, Shard
from pmavae_cli.run.inputs import Source
from pmavae_cli.run.jobs import Refused
from pmavae_cli.run.plan import make_plan

# What a file system takes as a name: anything but the separator, at most 255 bytes.
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80)
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def files(here: Path) -> Iterator[Path]:
    """A folder that every example of a property can empty."""
    yield here


def empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()


@pytest.mark.parametrize(
    "pair",
    [
        ("one/Photo.jpg", "two/photo.jpg"),
        ("one/É.jpg", "two/é.jpg"),
        ("one/é.jpg", "two/e\N{COMBINING ACUTE ACCENT}.jpg"),
        ("one/STRASSE.jpg", "two/straße.jpg"),
    ],
)
def test_names_that_many_disks_take_for_one_are_refused(here: Path, pair: tuple[str, str]) -> None:
    touch(*pair)
    with pytest.raises(Refused, match=r"many do not: rename one, or run them apart") as caught:
        plan("decode", *pair, output="out/")
    for name in pair:
        assert name in str(caught.value)
    assert not Path("out").exists()


def test_folders_are_told_apart_by_letters_only_where_they_are_to_be_made(here: Path) -> None:
    touch("in/A/x.jpg", "in/a/x.jpg")
    with pytest.raises(Refused, match="rename one"):
        plan("decode", "in", recursive=True, output="out")
    assert [o for _, o in plan("decode", "in", recursive=True)] == ["in/A/x.decode.png", "in/a/x.decode.png"]


def test_an_output_that_is_the_folder_of_another_is_refused(here: Path) -> None:
    touch("in/a.jpg", "in/a.png/b.jpg")
    with pytest.raises(Refused, match=r"in/a\.jpg would become out/a\.png, which is also the folder"):
        plan("decode", "in", recursive=True, output="out")


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"skip_existing": True}])
def test_an_output_whose_name_a_folder_has_is_refused(here: Path, how: dict[str, bool]) -> None:
    touch("a.jpg", "out/a.png/b.txt")
    with pytest.raises(Refused, match=r"out/a\.png is a folder"):
        plan("decode", "a.jpg", output="out", **how)


def test_one_folder_of_many_that_takes_no_files_is_found_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("in/1/a.jpg", "in/2/a.jpg", "in/3/a.jpg")
    # The superuser, as whom tests may run, has every permission.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "2")
    with pytest.raises(Refused, match=r"in/2/a\.decode\.png cannot be written: no permission for in/2; give"):
        plan("decode", "in", recursive=True)
    assert len(plan("decode", "in/1", "in/3")) == 2
    touch("in/2/a.decode.png")  # and nothing is to be written there
    assert len(plan("decode", "in", recursive=True, skip_existing=True)) == 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x" * 251 + ".jpg", {}),
        ("ж" * 125 + ".jpg", {}),
        ("x" * 246 + ".jpg", {"output": "out/", "format": "safetensors"}),
        ("a.jpg", {"output": "o" * 252 + ".png"}),
        ("a.jpg", {"output": "o" * 256 + "/a.png"}),
        ("a.jpg", {"output": "o/" * 2048 + "a.png"}),
    ],
)
def test_a_name_that_is_too_long_is_refused(here: Path, name: str, options: dict[str, str]) -> None:
    touch(name)
    with pytest.raises(Refused, match=r"cannot be written: .* has \d+ bytes, .*give a"):
        plan("decode", name, **options)


def test_a_name_of_255_bytes_can_be_written(here: Path) -> None:
    touch("x" * 251 + ".jpg")
    assert plan("decode", "x" * 251 + ".jpg", output="out/") == [
        ("x" * 251 + ".jpg", "out/" + "x" * 251 + ".png")
    ]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free", "fits"), [(20_000, False), (10_000_000, True)])
def test_a_disk_without_room_for_all_outputs_is_refused(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    Path("in").mkdir()
    for i in range(70):  # of which a sample is looked at
        picture((100, 100), seed=i).save(f"in/{i}.png")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9 - free, free))
    result = pmavae("decode", "in", "-o", "out", "--weights", "never-loaded")
    assert ("never-loaded" in result.err) == fits
    assert result.status == (1 if fits else 2)
    if not fits:
        assert result.err == (
            "pmavae: . has 0.0 MB free, and 70 outputs need at least 0.5 MB: "
            "make room, or give -o on another disk\n"
        )
    assert not Path("out").exists()


def test_room_is_estimated_by_scale_and_format_and_only_for_what_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture((200, 200)).save("a.png")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 50_000))

    def fits(scale: int, **options: str | bool) -> bool:
        try:
            make_plan(TASKS["upscale"], 1, ["a.png"], [], RunOptions(**options), scale=scale)  # type: ignore[arg-type]
        except Refused:
            return False
        return True

    assert fits(1) and not fits(4)
    assert fits(2, format="jpg") and not fits(2)
    Path("a.upscale.png").write_bytes(bytes(500_000))
    assert fits(4, overwrite=True) and fits(4, skip_existing=True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(0, 0, 0))
    assert fits(4, output="b.png")


def test_an_unreadable_input_needs_no_room_and_a_pipe_is_not_opened(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 0))
    touch("a.jpg")
    os.mkfifo("pipe.jpg")
    assert [o for _, o in plan("decode", "a.jpg", "pipe.jpg")] == ["a.decode.png", "pipe.decode.png"]


@SETTINGS
@given(names=st.lists(NAMES, min_size=1, max_size=6), data=st.data())
@example(names=["-o", "--", "-", "a b", "é", "e\N{COMBINING ACUTE ACCENT}"], data=None)
@example(names=["x" * 251, ".", "..", "~", "$HOME", "*", "[a]", "a\nb", "%s"], data=None)
def test_whatever_files_are_called_a_plan_is_refused_or_sound(
    files: Path, names: list[str], data: st.DataObject | None
) -> None:
    empty(files)
    kept = [f"{name}.jpg" for name in names if len(os.fsencode(name)) <= 251 and name.strip(".")]
    kept = list(dict.fromkeys(kept))
    if not kept:
        return
    touch(*kept)
    output = data.draw(st.sampled_from([None, "out/"])) if data else "out/"
    before = sorted(files.iterdir())
    try:
        made = make_plan(TASKS["decode"], 1, kept, [], RunOptions(output=output))
    except Refused as refusal:
        assert refusal.format_message().count(" ") > 3
    else:
        assert not made.failures
        assert [job.source.name for job in made.jobs] == kept
        paths = [job.outputs[0].path for job in made.jobs]
        assert len({str(path).casefold() for path in paths}) == len(kept)
        for path, name in zip(paths, kept, strict=True):
            assert path is not None
            assert path.parent == Path(output or ".")
            assert path.name == (f"{Path(name).stem}.png" if output else f"{Path(name).stem}.decode.png")
            assert len(os.fsencode(path.name)) <= 255
            assert not os.path.lexists(path)
    assert sorted(files.iterdir()) == before


@SETTINGS
@given(
    tree=st.lists(
        st.lists(st.sampled_from(["a", "B", "b", "p2", "p10", "é"]), min_size=1, max_size=3), max_size=12
    ),
    parts=st.integers(1, 15),
)
def test_every_input_is_in_exactly_one_shard(files: Path, tree: list[list[str]], parts: int) -> None:
    empty(files)
    touch("in/first.jpg", *(f"in/{'/'.join(path)}.jpg" for path in tree))
    arguments = ["in", "gone.jpg", "in-no-place/*.png"]

    def run(shard: Shard | None) -> tuple[list[tuple[str, str]], list[str]]:
        options = RunOptions(recursive=True, shard=shard)
        made = make_plan(TASKS["decode"], 1, arguments, [], options)
        return [(j.source.name, j.outputs[0].name) for j in made.jobs], [name for name, _ in made.failures]

    try:
        whole, failures = run(None)
    except Refused:  # a and B in one folder, say, and so in every shard
        for part in range(1, parts + 1):
            with pytest.raises(Refused):
                run(Shard(part, parts))
        return
    shards = [run(Shard(part, parts)) for part in range(1, parts + 1)]
    assert sorted(job for jobs, _ in shards for job in jobs) == sorted(whole)
    assert sorted(name for _, names in shards for name in names) == sorted(failures)
    sizes = [len(jobs) for jobs, _ in shards]
    assert max(sizes) - min(sizes) <= 1


def test_the_order_does_not_depend_on_the_order_of_the_disk(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("in/p1.jpg", "in/p01.jpg", "in/P1.png", "in/p001.jpg")
    listed = list(Path("in").iterdir())
    orders = []
    for order in (listed, listed[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda folder, order=order: iter(order))
        options = RunOptions(output="out/", format="webp")
        with pytest.raises(Refused):  # p1 and P1
            make_plan(TASKS["decode"], 1, ["in"], [], options)
        orders.append([source.name for source in _sources("in")])
    assert orders[0] == orders[1]


def _sources(folder: str) -> list[Source]:
    from pmavae_cli.run.inputs import find_inputs

    return find_inputs([folder], lambda path: ()).sources


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "١/٢"])
def test_a_shard_that_is_none(pmavae: Command, here: Path, shard: str) -> None:
    touch("a.jpg")
    result = pmavae("decode", "a.jpg", "--shard", shard)
    assert (result.status, result.out) == (2, b"")
    assert "is not I/N with I from 1 to N: write 1/4" in result.err


def test_shards_collide_as_the_whole_does(here: Path) -> None:
    touch("a.jpg", "a.png")
    with pytest.raises(Refused, match="would both become"):
        plan("decode", "a.jpg", "a.png", output="out/", shard=Shard(1, 2))


def test_an_output_of_another_shard_may_exist(here: Path) -> None:
    touch("a.jpg", "b.jpg", "a.decode.png")
    assert plan("decode", "a.jpg", "b.jpg", shard=Shard(2, 2)) == [("b.jpg", "b.decode.png")]
    with pytest.raises(Refused, match="exists"):
        plan("decode", "a.jpg", "b.jpg", shard=Shard(1, 2))
