"""torchvision, which peers import, also where it was built for another torch. Import it from a benchmark."""

from __future__ import annotations

import sys

from torch import library


def allow_any_torchvision() -> None:
    """Name the operators that torchvision names while it is imported; no model of a benchmark calls them.

    Without its compiled library `import torchvision` ends with "operator torchvision::nms does not exist".
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for operator in ("nms", "qnms"):
            library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
