"""Networks without weights: every layer and every shape, and no memory for a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FILLS = frozenset((Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_))


@contextmanager
def weightless() -> Iterator[None]:
    """Networks that are made in here are on torch's meta device, where a tensor is a shape and a dtype.

    Their initial values are not drawn: on that device, drawing loads half of torch's compiler, which takes
    more time than reading the weights.
    """
    with torch.device("meta"), _NoInitialValues():
        yield


class _NoInitialValues(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
