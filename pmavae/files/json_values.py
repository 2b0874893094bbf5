"""JSON as the files of this library have it, and the checks of its values."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_json(text: str) -> Any:
    """JSON as its standard has it: no NaN, no key twice. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("a key appears twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_string_map(value: Any) -> bool:
    """Whether a JSON value is an object with nothing but strings in it."""
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def is_label(value: Any) -> bool:
    """Whether a JSON value is a short printable string, so that a message may quote it as it is."""
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()


def is_sha256(value: Any) -> bool:
    """Whether a JSON value is a SHA-256 in lowercase hexadecimal."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
