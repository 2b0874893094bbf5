"""docs/plugins.md: its code is that of the examples, and its reference that of the API."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pmavae
import pmavae_cli
from pmavae_cli import api

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/plugins.md").read_text()
PACKAGE = Path(pmavae_cli.__file__).parent
LIBRARY = Path(pmavae.__file__).parent
INCLUDED = [
    "plugin-posterize/src/pmavae_posterize/__init__.py",
    "plugin-posterize/pyproject.toml",
    "plugin-posterize/tests/test_pmavae_posterize.py",
    "plugin-latent-arithmetic/src/pmavae_latent_arithmetic/__init__.py",
    "plugin-deblur/src/pmavae_deblur/__init__.py",
]
# Classes of the API that are of the library, which does not import the command line.
ELSEWHERE = {
    "Training": "training/plugin.py",
    "Batch": "training/plugin.py",
    "Examples": "training/plugin.py",
    "Example": "training/plugin.py",
    "Phase": "training/phases.py",
    "Draws": "training/objectives/base.py",
}


def test_the_code_of_the_tutorial_is_that_of_the_examples() -> None:
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", TEXT[: TEXT.index("\n## Reference")], re.M | re.S)
    whole = [block for block in blocks if block.startswith(('"""', "[build-system]"))]
    assert whole == [(ROOT / "examples" / path).read_text() for path in INCLUDED]
    assert len(whole[0].splitlines()) <= 30
    for path in INCLUDED:
        assert f"`examples/{path}`" in TEXT


def public(body: list[ast.stmt]) -> Iterator[str]:
    """What a class or a module has, as its source has it."""
    for node in body:
        if isinstance(node, ast.AnnAssign):
            value = f" = {ast.unparse(node.value)}" if node.value else ""
            line = f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{value}"
        elif isinstance(node, ast.FunctionDef):
            returns = ast.unparse(node.returns) if node.returns else "None"
            decorators = [ast.unparse(d) for d in node.decorator_list]
            if any(decorator.endswith(".setter") for decorator in decorators):
                continue  # of a property that is there
            call = f"({ast.unparse(node.args)}) ->" if "property" not in decorators else ":"
            line = f"{node.name}{call} {returns}"
        elif isinstance(node, ast.Assign):
            line = ast.unparse(node)
        else:
            continue
        if not line.startswith("_") or line.startswith("__call__"):
            yield line


def signatures() -> dict[str, set[str]]:
    """All of the API, by heading: its hooks, the constants and classes, and the types they are written in."""
    hooks = ast.parse((PACKAGE / "hookspecs.py").read_text()).body
    module = ast.parse((PACKAGE / "api.py").read_text()).body
    found = {
        "Hooks": set(public([node for node in hooks if isinstance(node, ast.FunctionDef)])),
        "Constants": {line for line in public(module) if line.split(" = ")[0] in api.__all__},
    }
    for name, file in ELSEWHERE.items():
        body = ast.parse((LIBRARY / file).read_text()).body
        (node,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
        found[name] = set(public(node.body))
    for node in module:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING"
            found["Types"] = set(public(node.body))
        elif isinstance(node, ast.ClassDef) and node.name in {*api.__all__, "Progress"}:
            found[node.name] = set(public(node.body))
    return found


def test_the_reference_has_every_hook_and_attribute_with_its_signature() -> None:
    reference = TEXT[TEXT.index("\n## Reference") :]
    documented = {
        section.split("\n", 1)[0]: re.findall(r"^- `(.+?)`", section, re.M)
        for section in reference.split("\n### ")[1:]
    }
    for heading, lines in signatures().items():
        assert sorted(documented[heading]) == sorted(lines), heading
    assert set(documented) == set(signatures())
    constants = {line.split(" = ")[0] for line in documented["Constants"]}
    assert set(api.__all__) <= constants | set(documented)
