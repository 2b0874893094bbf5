"""What others may import: a list here, so that changing it is a decision."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pmavae
import pmavae.vmamba
import pmavae_cli.api

ROOT = Path(__file__).parent.parent
PACKAGES = ("pmavae", "pmavae_cli")

LIBRARY = ["PMAVAE", "PRESETS", "Latents", "Style"]
VMAMBA = ["MEAN", "STD", "VARIANTS", "VMAMBA", "VMamba", "VMambaConfig"]
TASK_API = [
    "API_VERSION",
    "MASK",
    "OLDEST_API_VERSION",
    "PICTURE",
    "STYLE",
    "TILE",
    "Batch",
    "Context",
    "Example",
    "Examples",
    "Named",
    "Phase",
    "Task",
    "Training",
    "Weighted",
    "hookimpl",
]
# By module, what the examples, the code blocks of the documentation and the notebooks import.
IMPORTED = {
    "pmavae": ["Latents", "PMAVAE", "PRESETS"],
    "pmavae.autoencoder": ["to_tensor"],
    "pmavae.config": ["BASE_STRIDE", "DETAIL_STRIDE"],
    "pmavae.network_configs": ["NetworkConfig", "STRIDES"],
    "pmavae.errors": ["ImageError", "PMAVAEError", "WeightsError"],
    "pmavae.files.header": ["is_label", "weights_header"],
    "pmavae.images.metrics": ["psnr"],
    "pmavae.images.pixels": ["to_pixels"],
    "pmavae.ss2d": ["DIRECTIONS", "SS2D"],
    "pmavae.latents": ["exchange", "join_style", "normalise", "restore", "split_style", "statistics"],
    "pmavae.pretrained.network": ["TaskNetwork"],
    "pmavae.files.tensors": ["write_atomically"],
    "pmavae.training.evaluation": ["picture_paths"],
    "pmavae.images.reading": ["FORMATS", "MAX_PIXELS", "refusing"],
    "pmavae.vmamba": ["MEAN", "STD", "VMAMBA", "VMamba", "VMambaConfig"],
    "pmavae.vmamba.network": ["SS2D"],
    "pmavae.pretrained.resolve": ["resolve"],
    "pmavae_cli.api": [
        "Batch",
        "Context",
        "Example",
        "Examples",
        "Named",
        "Phase",
        "Pixels",
        "Task",
        "Training",
        "hookimpl",
    ],
    "pmavae_cli.main": ["main"],
}
# Modules that the documentation runs, as `python -m module`.
RUN = {
    "pmavae.pretrained.model_card",
    "pmavae.training.conversion",
    "pmavae.training.release",
    "pmavae_cli",
}
# Names that the documentation mentions as `module.name`.
MENTIONED = {
    "pmavae.Style",
    "pmavae.errors.PMAVAEError",
    "pmavae.pretrained.hub.HubError",
    "pmavae.pretrained.hub.fetch",
    "pmavae.pretrained.hub.push",
    "pmavae.inference.fused",
    "pmavae.inference.offload",
    "pmavae.style_transfer.distances",
    "pmavae.restoration.tiles.restore_pixels",
    "pmavae.latents.mix_style",
    "pmavae.texture.sampling.fit_region",
    "pmavae.texture.sampling.vary",
    "pmavae.network_configs.DROP_PATH",
    "pmavae_cli.api",
}
NO_MODULES = {"pmavae.plugins", "pmavae.network"}  # a group of entry points, and metadata of ONNX files


def test_the_lists_of_public_names() -> None:
    assert pmavae.__all__ == LIBRARY
    assert pmavae.vmamba.__all__ == VMAMBA
    assert pmavae_cli.api.__all__ == TASK_API
    for module in (pmavae, pmavae.vmamba, pmavae_cli.api):
        for name in module.__all__:
            getattr(module, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pmavae.nothing  # noqa: B018


def test_public_names_are_found_without_torch() -> None:
    code = "import sys, pmavae, pmavae.vmamba, pmavae_cli.api; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def texts() -> Iterator[tuple[Path, str]]:
    """Every piece of python code that a user may start from."""
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path, path.read_text("utf-8")
    for path in documents():
        for block in re.findall(r"^ *```python\n(.*?)^ *```$", path.read_text("utf-8"), re.M | re.S):
            yield path, textwrap.dedent(block)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                # A line for the shell is no python.
                yield path, re.sub(r"^[!%].*$", "", "".join(cell["source"]), flags=re.M)


def documents() -> list[Path]:
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), ROOT / "README.md"]
    return sorted(found)


def imports_of(code: str) -> Iterator[tuple[str, str]]:
    """The modules of the project that it imports, each with a name out of it or "" for itself."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module.split(".")[0] in PACKAGES:
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] in PACKAGES)


def collected() -> dict[str, list[str]]:
    """All of these imports, by module."""
    found: dict[str, set[str]] = {}
    for path, code in texts():
        try:
            imports = [*imports_of(code)]
        except SyntaxError as reason:
            pytest.fail(f"{path}: a block is no python: {reason}\n{code}")
        for module, name in imports:
            found.setdefault(module, set()).add(name)
    return {module: sorted(found[module]) for module in sorted(found)}


def test_what_examples_documentation_and_notebooks_import() -> None:
    assert collected() == IMPORTED


@pytest.mark.parametrize("module", IMPORTED)
def test_each_of_these_imports_works(module: str) -> None:
    found = importlib.import_module(module)
    for name in filter(None, IMPORTED[module]):
        assert hasattr(found, name) or name in for_types_alone(found), name


def for_types_alone(module: ModuleType) -> set[str]:
    """Names that a module has only where its types are checked, not while it runs."""
    tree = ast.parse(Path(module.__file__ or "").read_text("utf-8"))
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    assigned = [node for block in guarded for node in block.body if isinstance(node, ast.Assign)]
    return {ast.unparse(target) for node in assigned for target in node.targets}


def test_modules_that_the_documentation_runs() -> None:
    run: set[str] = set()
    for path in documents():
        run.update(re.findall(r"-m (pmavae[\w.]*)", path.read_text("utf-8")))
    assert run == RUN
    for module in RUN:
        source = Path(importlib.import_module(module).__file__ or "")
        if source.name == "__init__.py":
            source = source.with_name("__main__.py")
        assert "__main__" in source.read_text("utf-8") or source.name == "__main__.py", module


def test_names_that_the_documentation_mentions_are_there() -> None:
    mentioned: set[str] = set()
    for path in documents():
        spans = re.findall(r"`(pmavae(?:_cli)?(?:\.\w+)+)", path.read_text("utf-8"))
        mentioned.update(spans)
    assert mentioned - NO_MODULES == MENTIONED
    for name in MENTIONED:
        assert is_there(name), name


def is_there(dotted: str) -> bool:
    """Whether it is a module, or a name in one, or an attribute of that."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False
