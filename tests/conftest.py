"""What several test files use: small pictures, small weights, and two ways to run a command."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# As the command line has it: small pictures are all waiting, and spinning threads slow each other down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Tests run beside each other, one a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()


Command = Callable[..., Result]


def on_a_terminal(*arguments: str) -> tuple[bytes, bytes]:
    """What a command writes to stdout, and what it shows on stderr where that is a terminal."""
    screen, stderr = pty.openpty()
    command = [sys.executable, "-m", "pmavae_cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    os.close(stderr)
    shown = b""
    while True:
        try:
            part = os.read(screen, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate()
    os.close(screen)
    assert process.returncode == 0, shown
    return out, shown


def picture(size: tuple[int, int] = (48, 40), seed: int = 0) -> Image.Image:
    """A picture with colours, edges and no symmetry."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack(
        [np.sin((seed + 1) * (c + 1) * 0.11 * x + 0.17 * (c + 2) * y) for c in range(3)], axis=-1
    )
    values = 128 + 90 * waves + 30 * (x[..., None] > width // 3)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with untrained tiny weights."""
    import torch

    from pmavae import PMAVAE, PRESETS

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    PMAVAE(PRESETS["tiny"]).save_pretrained(folder, "test-tiny")
    return str(folder)


@pytest.fixture(scope="session")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a small denoiser."""
    from small_restorers import network

    folder = tmp_path_factory.mktemp("restorer")
    network("denoise").save_pretrained(folder, "hub-denoise")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pmavae(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in this process, where torch is loaded once."""
    from pmavae_cli.main import main

    def run(*arguments: Any, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Result(status, out, err.decode())

    return run


@pytest.fixture
def installed() -> Command:
    """Run a command line as a process of its own."""

    def run(*arguments: Any, stdin: bytes = b"", env: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "pmavae_cli", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env=env,
            timeout=300,
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())

    return run
