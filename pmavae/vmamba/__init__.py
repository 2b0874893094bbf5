"""VMamba (arXiv 2401.10166), the family that SS2D comes from: classifiers, and backbones for other networks.

    from pmavae.vmamba import VMAMBA, VMamba
    model = VMamba(VMAMBA["vmamba-tiny"])
    logits = model(x)            # (B, classes)
    maps = model.features(x)     # four maps, at strides 4, 8, 16, 32

What needs torch is loaded on first use, so that importing the package does not import it.
"""

from typing import TYPE_CHECKING, Any

from pmavae.network_configs import MEAN, STD, VARIANTS, VMAMBA, VMambaConfig

if TYPE_CHECKING:
    from pmavae.vmamba.network import VMamba

__all__ = ["MEAN", "STD", "VARIANTS", "VMAMBA", "VMamba", "VMambaConfig"]


def __getattr__(name: str) -> Any:
    if name != "VMamba":
        raise AttributeError(f"module 'pmavae.vmamba' has no attribute {name!r}")
    from pmavae.vmamba.network import VMamba

    return VMamba
