"""How many of the project's modules a command line loads.

    python benchmarks/imports_of.py
    python benchmarks/imports_of.py --list decode latents.safetensors -o out.png
    python benchmarks/imports_of.py --root ../another-checkout -- --help

Runs `pmavae` with the arguments, by default `denoise PHOTO -o out.png` with a picture of `examples/`, in a
process of its own, and prints how many modules of `pmavae` and `pmavae_cli` are loaded at its end. Files
called `__init__` and `__main__` are not counted: they hold next to nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PHOTO = CHECKOUT / "examples/content-ridge.jpg"
# What is loaded goes to a file, as the command may write to stdout and to stderr.
REPORT = """
import sys
from pathlib import Path
from pmavae_cli.main import main
status = main(sys.argv[2:])
with open(sys.argv[1], "w", encoding="utf-8") as file:
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] in ("pmavae", "pmavae_cli"):
            file.write(f"{name} {Path(module.__file__ or '').name}\\n")
sys.exit(status)
"""


def modules_of(arguments: list[str], root: Path) -> list[str]:
    """Their names, sorted; what the command prints goes to stderr, and where it fails this ends."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "modules"
        done = subprocess.run(
            [sys.executable, "-c", REPORT, str(report), *arguments],
            stdout=sys.stderr,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        if done.returncode:
            sys.exit(done.returncode)
        loaded = [line.split() for line in report.read_text("utf-8").splitlines()]
    return [name for name, *file in loaded if file not in (["__init__.py"], ["__main__.py"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=CHECKOUT, help="checkout whose code is run")
    parser.add_argument("--list", action="store_true", help="print their names as well")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of pmavae")
    args = parser.parse_args()
    arguments = args.arguments[args.arguments[:1] == ["--"] :]
    with tempfile.TemporaryDirectory() as folder:
        names = modules_of(
            arguments or ["denoise", str(PHOTO), "-o", f"{folder}/out.png"], args.root.resolve()
        )
    if args.list:
        print("\n".join(names))
    library = sum(name.startswith("pmavae.") for name in names)
    print(f"{len(names)} modules: {library} of pmavae, {len(names) - library} of pmavae_cli")


if __name__ == "__main__":
    main()
