"""What a machine may not have: a network, a terminal, memory."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from conftest import Command, on_a_terminal, picture

from pmavae_cli.api import Task
from pmavae_cli.plugin_manager import load_plugins

# Colours of the foreground and the background; bold and dim are no colours.
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


def test_nothing_asks_the_network(pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: Any, **named: Any) -> NoReturn:
        asked.append(arguments)
        raise OSError("there is no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    picture((32, 32)).save("a.png")
    picture((32, 32), seed=1).save("b.png")
    options = {"style-mix": ["b.png", "--refine", "1"]}
    for task in load_plugins().tasks:
        result = pmavae(task, "a.png", *options.get(task, []), "-o", f"{task}.safetensors", "-q")
        assert (result.status, result.err) == (0, ""), task
    for command in (["info", "a.png"], ["compare", "a.png", "decode.safetensors"], ["plugins"]):
        assert pmavae(*command).status == 0
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["style-mix", "--help"],
        ["plugins"],
        ["info", "a.png"],
        ["compare", "a.png", "a.png"],
        ["denoise", "a.png", "bad.png", "-o", "out/", "-v"],
        ["denoise", "a.png", "-o", "json/", "--json"],
        ["decode", "a.png", "-o", "a.png"],
        ["no-such-task"],
    ],
)
def test_where_there_is_no_terminal_nothing_is_for_one(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    picture((32, 32)).save("a.png")
    Path("bad.png").write_bytes(b"\x1b[31mno picture")
    result = pmavae(*arguments)
    assert result.out or result.err
    assert b"\x1b" not in result.out + result.err.encode()
    assert "\r" not in result.err


def test_no_color_is_heeded_on_a_terminal(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture((32, 32)).save("a.png")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    mix = ("style-mix", "a.png", "a.png", "--refine", "3", "-v", "-o", "out.png")
    out, shown = on_a_terminal(*mix)
    assert out == b"out.png\n"
    assert b"100%" in shown  # there is a bar all the same
    assert not COLOUR.search(shown)


class Hungry(Task):
    name = "hungry"
    help = "Have no memory for the second picture."
    input_kind = "pixels"

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.done = 0

    def transform(self, pixels: Any, context: Any) -> Any:
        self.done += 1
        if self.done == 2:
            raise self.error
        return pixels


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_where_memory_ends_one_picture_fails_and_is_named(
    pmavae: Command, here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    registry = load_plugins()
    registry.tasks["hungry"] = Hungry(error)
    monkeypatch.setattr("pmavae_cli.main.load_plugins", lambda: registry)
    for name in "abc":
        picture((32, 32)).save(f"{name}.png")
    result = pmavae("hungry", "a.png", "b.png", "c.png", "-o", "out/")
    assert result.status == 1
    assert result.lines == ["out/a.png", "out/c.png"]
    assert result.err.startswith("pmavae: b.png: it needs more memory than there is")
    assert result.err.count("\n") == 1
