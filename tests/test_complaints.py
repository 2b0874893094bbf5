"""Every complaint in docs/complaints.md is guarded by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "complaints.md"

# What the complaints are about; the table has a row for each, in this order, and no other.
TOPICS = [
    "seams",
    "out of memory",
    "black or NaN",
    "metadata or ICC",
    "rotated",
    "alpha dropped",
    "resumed",
    "both become",
    "one bad file",
    "exit status 0",
    "destroys the source",
    "non-ASCII",
    "offline",
    "stdin or stdout",
    "progress bars",
    "--help",
    "one broken plugin",
    "checkpoints",
    "exact step",
    "Hub downloads",
]

# Rows whose subject is not there in part, which they have to say.
NOT_YET = {"seams", "non-ASCII"}


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"}


def test_the_table_has_every_complaint_once() -> None:
    complaints = [row[0] for row in rows()]
    assert len(complaints) == len(TOPICS)
    for topic, complaint in zip(TOPICS, complaints, strict=True):
        assert topic in complaint


@pytest.mark.parametrize("index", range(len(TOPICS)), ids=TOPICS)
def test_every_complaint_is_guarded_by_a_test_that_exists(index: int) -> None:
    complaint, raised, done, guards = rows()[index]
    named = re.findall(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", guards)
    assert named, f"no test guards: {complaint}"
    assert len(named) == guards.count("::")
    for file, test in named:
        assert test in defined_in(TESTS / file), f"{file} has no {test}"
    assert raised
    assert done.endswith(".")
    assert (" yet" in done) == (TOPICS[index] in NOT_YET)
