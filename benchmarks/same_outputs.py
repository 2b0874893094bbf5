"""The outputs of every task, kept and compared with those of another commit.

    python benchmarks/same_outputs.py --out before
    python benchmarks/same_outputs.py --root ../another-checkout --against before

The command lines of `every_task.py` run as processes of their own, on one thread, with the built-in plugins
and without network. The same code on the same machine gives the same bytes.

The folder of `--out` gets all files, what the commands said (paths and times left out), and hashes.json: of
every file, of the pixels of a picture with their type and shape, and of the tensors and metadata of a latent
file. With `--against` each output is told to be the same, or how far it is off; the exit status is 1 where
anything differs by more than is tolerated. `--only` runs some groups of commands: each needs no other.

Nothing here imports the project, so any commit can be run that has the same command line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from every_task import CHECKOUT, DAMAGED, GROUPS, WITHOUT_JSON, Case, make_inputs
from PIL import Image
from safetensors import safe_open

PICTURES = {".png", ".jpg", ".webp", ".tif", ".bmp", ".avif"}
LATENTS = ".safetensors"
SAID = ".said"  # suffix of what a command wrote to stdout and stderr
# The same command line, for which pictures of more pixels than this are too large to be read as a whole.
LOW_LIMIT = """
import runpy, sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = 8_000
sys.argv[0] = "pmavae"
runpy.run_module("pmavae_cli", run_name="__main__")
"""


def run(case: Case, group: str, folder: Path, root: Path) -> None:
    """One command, with its outputs below `folder`, and what it said."""
    start = ["-c", LOW_LIMIT] if case.low_limit else ["-m", "pmavae_cli"]
    words = case.line.split()
    is_task = bool(case.to) and words[0] != "compare"
    if is_task:
        words += ["--threads", "1", "--device", "cpu"]
    elif words[0] == "compare":
        words += ["--threads", "1"]
    output = f"{group}/{case.to}"
    if case.stdin:
        words += ["-o", "-"]
    elif case.to:
        words += ["-o", output]
    takes_json = (
        (is_task and not case.stdin) or words[0] in ("compare", "info") or words[:2] == ["weights", "list"]
    )
    if takes_json and "--help" not in words and case.name not in WITHOUT_JSON:
        words.append("--json")
    (folder / group).mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *start, *words],
        input=(folder / case.stdin).read_bytes() if case.stdin else b"",
        capture_output=True,
        cwd=folder,
        env=environment(folder, root),
    )
    out, err = done.stdout, done.stderr
    if case.stdin:
        (folder / output).write_bytes(out)
        out = b""
    said = f"exit status {done.returncode}\n{plain(out, folder, root)}---\n{plain(err, folder, root)}"
    (folder / group / f"{case.name}{SAID}").write_text(said, encoding="utf-8")


def environment(folder: Path, root: Path) -> dict[str, str]:
    """Of the processes: the code of `root`, and nothing that may change from run to run."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PMAVAE_", "HF_", "_PMAVAE"))}
    return kept | {
        "PYTHONPATH": str(root),
        "PMAVAE_PLUGINS": "",
        "PMAVAE_CACHE": str(folder / ".cache"),
        "HF_HOME": str(folder / ".hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }


def plain(data: bytes, folder: Path, root: Path) -> str:
    """What was said, without times and without where the code and the folder are."""
    text = data.decode(errors="backslashreplace").replace(str(folder), "FOLDER").replace(str(root), "ROOT")
    lines = []
    for line in text.splitlines():
        if line.startswith("{"):
            fields = json.loads(line)
            line = json.dumps({k: v for k, v in fields.items() if k not in ("seconds", "path")})
        lines.append(re.sub(r"\b\d+(\.\d+)? (s|ms)\b", "TIME", line) + "\n")
    return "".join(lines)


def outputs(folder: Path, groups: list[str]) -> Iterator[tuple[str, Path]]:
    """The files of some groups and the inputs, by names that are sorted."""
    for group in ["inputs", *groups]:
        for path in sorted((folder / group).rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def hashes_of(path: Path) -> dict[str, str]:
    """By what is hashed, "" for the bytes."""
    found = {"": hashlib.sha256(path.read_bytes()).hexdigest()}
    if path.name == DAMAGED:
        return found
    if path.suffix in PICTURES:
        pixels = pixels_of(path)
        found["#pixels"] = digest({"": pixels}, {})
    elif path.suffix == LATENTS:
        found["#tensors"] = digest(*tensors_of(path))
    return found


def digest(arrays: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str]) -> str:
    """Of arrays with their types and shapes, and of the text beside them."""
    whole = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        whole.update(f"{name} {array.dtype} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    """(H, W) or (H, W, channels) as they are in the file, not turned; 8 or 16 bits."""
    if path.suffix in (".png", ".tif"):  # Pillow takes 16 bits of greys alone
        return np.asarray(imagecodecs.imread(path))
    with Image.open(path) as image:
        return np.asarray(image)


def tensors_of(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


@dataclass(frozen=True)
class Difference:
    """How an output is not what it was."""

    text: str
    tolerated: bool = False


def difference(old: Path, new: Path, levels: int) -> Difference | None:
    """None for the same bytes."""
    if old.read_bytes() == new.read_bytes():
        return None
    if new.suffix in PICTURES and new.name != DAMAGED:
        return of_arrays("", pixels_of(old), pixels_of(new), levels) or Difference(
            "the same pixels, but not the same file: metadata or how it is packed"
        )
    if new.suffix == LATENTS:
        (before, notes), (after, other) = tensors_of(old), tensors_of(new)
        if before.keys() != after.keys():
            return Difference(f"tensors {sorted(before)} became {sorted(after)}")
        found = [of_arrays(f"{name}: ", before[name], after[name], 0) for name in sorted(before)]
        texts = [one.text for one in found if one]
        texts += [f"metadata {k}" for k in sorted({*notes, *other}) if notes.get(k) != other.get(k)]
        return Difference("; ".join(texts) or "the same tensors, but not the same file")
    lines = [path.read_text(encoding="utf-8", errors="backslashreplace").splitlines() for path in (old, new)]
    for number, (was, now) in enumerate(zip(*lines, strict=False), 1):
        if was != now:
            return Difference(f"line {number}: {was[:300]!r} became {now[:300]!r}")
    return Difference(f"{len(lines[0])} lines became {len(lines[1])}")


def of_arrays(
    what: str, old: np.ndarray[Any, Any], new: np.ndarray[Any, Any], levels: int
) -> Difference | None:
    """None for equal arrays; integers differ in levels of their own depth."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return Difference(f"{what}{old.dtype} {old.shape} became {new.dtype} {new.shape}")
    apart = np.abs(old.astype(np.float64) - new.astype(np.float64))
    if not (count := np.count_nonzero(apart)):
        return None
    most = apart.max()
    if old.dtype.kind == "f":
        return Difference(f"{what}{most:.3g} at most, in {count} of {apart.size} values")
    depth = 8 * old.dtype.itemsize
    text = f"{what}{most:.0f} levels of {depth} bits at most, in {count} of {apart.size} values"
    return Difference(text, tolerated=bool(most <= levels))


def compare(old: Path, new: Path, groups: list[str], levels: int) -> bool:
    """Whether nothing differs by more than is tolerated; prints every output."""
    before, after = dict(outputs(old, groups)), dict(outputs(new, groups))
    same = 0
    worse: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            found: Difference | None = Difference("is missing" if name in before else "is new")
        else:
            found = difference(before[name], after[name], levels)
        if found is None:
            same += 1
        elif not found.tolerated:
            worse.append(name)
        verdict = "same" if found is None else "near" if found.tolerated else "DIFFERS"
        print(f"{verdict:8s}{name}" + (f"  {found.text}" if found else ""))
    total = len(before.keys() | after.keys())
    print(f"{same} of {total} outputs are the same, {total - same - len(worse)} near, {len(worse)} differ")
    return not worse


def check_root(root: Path) -> None:
    """End where python would run other code than that of `root`."""
    code = "import pmavae, pmavae_cli; print(pmavae.__file__, pmavae_cli.__file__, sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=root.anchor,
        env=os.environ | {"PYTHONPATH": str(root)},
    ).stdout.split("\n")[:2]
    for place in found:
        if not Path(place).resolve().is_relative_to(root):
            sys.exit(f"{place} is not in {root}: it has no pmavae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=CHECKOUT, help="checkout whose code is run")
    parser.add_argument("--out", type=Path, help="new folder to keep all outputs in")
    parser.add_argument("--against", type=Path, help="folder of an earlier run")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=[*GROUPS], metavar="GROUP")
    parser.add_argument("--tolerance-levels", type=int, default=0, metavar="N", help="of pixels; 1, say")
    args = parser.parse_args()
    root = args.root.resolve()
    check_root(root)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.out or Path(scratch) / "outputs").resolve()
        if folder.exists():
            sys.exit(f"{folder} exists: give a new --out")
        make_inputs(folder / "inputs")
        for group in args.only:
            began = time.perf_counter()
            for case in GROUPS[group]:
                run(case, group, folder, root)
            print(f"{group}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
        for hidden in (".cache", ".hub"):
            shutil.rmtree(folder / hidden, ignore_errors=True)
        hashes = {
            name + what: value
            for name, path in outputs(folder, args.only)
            for what, value in hashes_of(path).items()
        }
        (folder / "hashes.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
        print(f"{len(hashes)} hashes; all together {digest({}, hashes)}")
        if args.against and not compare(args.against.resolve(), folder, args.only, args.tolerance_levels):
            sys.exit(1)


if __name__ == "__main__":
    main()
