"""How weights on the Hugging Face Hub are named. Nothing here imports what fetches them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REFERENCE = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9_][A-Za-z0-9_./-]{{0,199}}))?(?::(?P<file>[^:]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubReference:
    """A weights file on the Hub, written as `org/name[@revision][:file]`."""

    repo: str  # "org/name"
    revision: str | None = None  # branch, tag or commit; None: main
    file: str | None = None  # in the repository; None: model.safetensors

    @classmethod
    def parse(cls, text: str) -> HubReference | None:
        """The reference that a text stands for; None for what is none, such as a path."""
        found = _REFERENCE.fullmatch(text)
        if found is None or "--" in found["repo"] or ".." in text or found["repo"].endswith(".git"):
            return None
        return cls(found["repo"], found["revision"], found["file"])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}{f':{self.file}' if self.file else ''}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit, whose files never change."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None
