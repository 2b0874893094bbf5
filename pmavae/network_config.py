"""What a weights file says of a network that is not one of pmavae's own. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pmavae.config import PlainConfig
from pmavae.files.json_values import is_label

MAX_SETTINGS = 100
MAX_NUMBER = 8192  # channels and blocks beyond it are an attack on memory, not a network


@dataclass(frozen=True)
class NetworkConfig(PlainConfig):
    """The network of a plugin's task."""

    preset: str
    task: str
    settings: dict[str, Any] = field(default_factory=dict)  # from which it is built; see `is_settings`


def is_settings(value: Any) -> bool:
    """Whether a JSON value is a table of settings: names with a number, a word, a truth value, or a list.

    Whole numbers are from 0 to MAX_NUMBER, others finite; a list has at most MAX_SETTINGS of these.
    """
    if not isinstance(value, dict) or len(value) > MAX_SETTINGS:
        return False
    return all(name.isidentifier() and len(name) <= 100 and _is_setting(v) for name, v in value.items())


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_SETTINGS and all(_is_single(part) for part in value)
    return _is_single(value)


def _is_single(value: Any) -> bool:
    if type(value) is int:
        return 0 <= value <= MAX_NUMBER
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is bool or is_label(value)
