"""Command lines in a process that uses a server for the Hub, or has no network at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from conftest import Result
from hub_server import HubServer

# Runs several command lines in one process, where torch is loaded once; prints a row of JSON for each.
COMMANDS = """
import contextlib, io, json, sys
from pmavae_cli.main import main
for arguments in json.loads(sys.argv[1]):
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(arguments)
    for stream in (out, err):
        stream.flush()
    row = [status, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()]
    print(json.dumps(row))
"""
# For sitecustomize.py: a process in which every use of the network ends it.
NO_SOCKETS = """
import os, socket
def refuse(*arguments, **named):
    os.write(2, b"a socket was opened")
    os._exit(99)
for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
"""


@dataclass(frozen=True)
class Hub:
    """A server, a cache of its own, and what is in the server."""

    server: HubServer
    home: Path
    commit: str  # of org/restorer

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return kept | self.server.environment(self.home)

    def run(self, *commands: list[str], **more: str) -> list[Result]:
        """Command lines in a process that uses this server."""
        process = [sys.executable, "-c", COMMANDS, json.dumps([[str(a) for a in c] for c in commands])]
        done = subprocess.run(process, capture_output=True, env=self.environment | more, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
        rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
        return [Result(status, out.encode(), err) for status, out, err in rows]

    def cached(self) -> Path:
        """The one weights file in the cache."""
        (path,) = self.home.glob("hub/models--*/snapshots/*/*.safetensors")
        return path


def no_sockets(folder: Path) -> dict[str, str]:
    """Variables of a process without network."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_SOCKETS)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
