"""The recurrence of the selective state space model, along four directions of an image."""

from pmavae.scan.operator import DIRECTIONS, directional_scan, register_backend
from pmavae.scan.selective import FusedScan, can_fuse, fused_scan_for

__all__ = ["DIRECTIONS", "FusedScan", "can_fuse", "directional_scan", "fused_scan_for", "register_backend"]
