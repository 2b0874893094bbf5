"""The recurrence of the selective state space model, along four directions of an image."""

from pmavae.scan.fused import FusedScan, can_fuse, fused_scan_for
from pmavae.scan.operator import directional_scan, register_backend

__all__ = ["FusedScan", "can_fuse", "directional_scan", "fused_scan_for", "register_backend"]
