"""One process or many: what they must agree on, through Hugging Face accelerate.

The model is small, so nothing is wrapped: after the backward pass all gradients travel as one flat
tensor. Whatever else the processes must agree on, such as when to stop, travels with them.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pmavae.errors import PMAVAEError


class Processes:
    """This process alone on `device`, or one of those that `accelerate launch` or torchrun started."""

    def __init__(self, device: torch.device, accelerator: Any = None) -> None:
        self.device, self._accelerator = device, accelerator
        self.rank, self.world = 0, 1
        self.mixed_precision = "no"  # what the launcher was asked for
        if accelerator is not None:
            self.rank, self.world = accelerator.process_index, accelerator.num_processes
            self.mixed_precision = accelerator.mixed_precision

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and speaks."""
        return bool(self.rank == 0)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self._accelerator is None:
            return values
        result: Tensor = self._accelerator.reduce(values, reduction="mean")
        return result

    def wait(self) -> None:
        """Until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the main process."""
        if self._accelerator is None:
            return
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.detach().clone().contiguous(), from_process=0))

    def average_gradients(self, parameters: Sequence[Tensor], numbers: Sequence[float]) -> list[float]:
        """Average the gradients over all processes, in place; also returns the means of `numbers`."""
        if self.world == 1:
            return list(numbers)
        gradients = [p.grad for p in parameters if p.grad is not None]
        extra = torch.tensor(numbers, dtype=torch.float32, device=self.device)
        flat = self.mean(torch.cat([*(g.flatten().float() for g in gradients), extra]))
        *parts, extra = flat.split([*(g.numel() for g in gradients), len(numbers)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return [float(x) for x in extra]


def join_processes(device: torch.device) -> Processes:
    """The processes of this run: all that a launcher has started, or this one on `device`.

    Raises PMAVAEError where a launcher has started several and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return Processes(device)
    try:
        from accelerate import Accelerator
    except ImportError:
        raise PMAVAEError("several processes need: pip install 'pmavae[train]'") from None
    accelerator = Accelerator(cpu=device.type == "cpu")
    return Processes(accelerator.device, accelerator)
