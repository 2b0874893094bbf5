"""The bars of a batch, as a screen shows them, and what is printed beside them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyte
import pytest
from conftest import picture

from pmavae_cli.console import Console
from pmavae_cli.progress import Bars

# A task whose pictures end when the test says so.
STEPS = """
import time
from pathlib import Path
from pmavae_cli.api import Task, hookimpl

class Steps(Task):
    name, help, input_kind = "steps", "Wait for the test.", "pixels"

    def transform(self, pixels, context):
        mark = int(pixels[0, 0, 0])
        if mark == 3:
            raise ValueError("it is of the wrong kind")
        context.log(f"begun {mark}")
        context.progress(1, 4, f"mark {mark}")
        while not Path(f"go-{mark}").exists():
            time.sleep(0.01)
        return pixels

@hookimpl
def register_tasks():
    return [Steps()]
"""


class Terminal:
    """A command on a terminal of 80 × 24, with both its streams or with stderr alone."""

    def __init__(self, *arguments: str, both: bool = True, env: Mapping[str, str] | None = None) -> None:
        self.screen = pyte.Screen(80, 24)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.end, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pmavae_cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=end if both else subprocess.PIPE,
            stderr=end,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "PYTHONPATH": os.pathsep.join(["site", *sys.path]),
                **(env or {}),
            },
        )
        os.close(end)
        os.set_blocking(self.end, False)

    def lines(self) -> list[str]:
        return [text for line in self.screen.display if (text := line.rstrip())]

    def _read(self) -> bool:
        """Whether there may be more to come."""
        try:
            part = os.read(self.end, 65536)
        except BlockingIOError:
            time.sleep(0.01)
            return True
        except OSError:
            return False
        self.raw += part
        self.stream.feed(part)
        return bool(part)

    def until(self, shows: Callable[[list[str]], bool]) -> list[str]:
        limit = time.monotonic() + 120
        while not shows(self.lines()):
            assert self._read() and time.monotonic() < limit, self.screen.display
        return self.lines()

    def finish(self) -> tuple[int, list[str]]:
        """The exit status, and what is left on the screen."""
        while self._read():
            pass
        status = self.process.wait(60)
        os.close(self.end)
        return status, self.lines()


@pytest.fixture
def steps(here: Path) -> list[str]:
    """The names of four pictures, of which the third fails."""
    site = Path("site")
    (site / "steps-1.0.dist-info").mkdir(parents=True)
    (site / "steps.py").write_text(STEPS)
    (site / "steps-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: steps\nVersion: 1.0\n")
    (site / "steps-1.0.dist-info/entry_points.txt").write_text("[pmavae.plugins]\nsteps = steps\n")
    names = [f"{i}.png" for i in range(1, 5)]
    for i, name in enumerate(names, 1):
        image = picture((32, 32))
        image.putpixel((0, 0), (i, 0, 0))
        image.save(name)
    return names


def test_a_batch_has_a_bar_below_all_that_is_printed(steps: list[str]) -> None:
    Path("out").mkdir()
    picture((32, 32)).save("out/0.png")  # is there already, and counts neither as done nor for the rate
    picture((32, 32)).save("0.png")
    terminal = Terminal("steps", "0.png", *steps, "-o", "out", "--skip-existing", "--json")
    shown = terminal.until(lambda lines: any("mark 1" in line for line in lines))
    assert shown[-2].startswith("0/4 ") and "pictures/s" not in shown[-2] and "failed" not in shown[-2]
    assert shown[-1].startswith("1.png ") and " 25%" in shown[-1] and shown[-1].endswith("mark 1")
    Path("go-1").touch()
    terminal.until(lambda lines: any("mark 2" in line for line in lines))
    Path("go-2").touch()
    shown = terminal.until(
        lambda lines: (
            any("mark 4" in line for line in lines) and "1 failed" in lines[-2] and "3/4" in lines[-2]
        )
    )
    assert "pictures/s" in shown[-2] and " left" in shown[-2]
    Path("go-4").touch()
    status, left = terminal.finish()
    assert status == 1
    # A row is longer than the terminal is wide, which goes on in the next line.
    text = "".join(line.ljust(80) for line in left)
    rows = [json.loads(part.split("}")[0] + "}") for part in text.split("{")[1:] for part in ["{" + part]]
    assert [(row["input"], row["status"]) for row in rows] == [
        ("0.png", "skipped"),
        ("1.png", "written"),
        ("2.png", "written"),
        ("3.png", "failed"),
        ("4.png", "written"),
    ]
    said = [line for line in left if line.startswith("pmavae:")]
    assert said == [
        "pmavae: begun 1",
        "pmavae: begun 2",
        "pmavae: 3.png: it is of the wrong kind",
        "pmavae: begun 4",
    ]
    assert "━" not in text and "pictures/s" not in text


def test_ctrl_c_takes_the_bar_away(steps: list[str]) -> None:
    terminal = Terminal("steps", *steps, "-o", "out/")
    terminal.until(lambda lines: any("mark 1" in line for line in lines))
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == (130, ["pmavae: begun 1", "pmavae: interrupted"])
    assert not terminal.screen.cursor.hidden


@pytest.mark.parametrize(
    ("arguments", "env", "bar", "colour"),
    [
        ([], {}, True, True),
        ([], {"NO_COLOR": "1"}, True, False),
        ([], {"TERM": "dumb"}, False, False),
        (["-q"], {}, False, False),
    ],
)
def test_where_there_is_a_bar_and_in_what(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    env: dict[str, str],
    bar: bool,
    colour: bool,
) -> None:
    for name, value in {"TERM": "xterm-256color", **env}.items():
        monkeypatch.setenv(name, value)
    if "NO_COLOR" not in env:
        monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    console = Console(quiet="-q" in arguments)
    with Bars(console, 3) as both:
        both.done(1)
        with both.picture("[odd] \x1b name.png") as report:
            report(1, 3, "[note]")
        console.result({"output": "a.png"})
    shown = capsys.readouterr()
    assert shown.out == "a.png\n"
    assert ("1/3" in shown.err, "[odd] \\x1b name.png" in shown.err, "[note]" in shown.err) == (bar,) * 3
    assert ("\x1b[3" in shown.err or "\x1b[38" in shown.err) is colour
    assert bool(shown.err) is bar


def test_no_bar_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(Console(), 3) as both, both.picture("a.png") as report:
        report(1, 3)
    assert capsys.readouterr().err == ""
