"""Restoration: networks that take noise and JPEG artefacts out of a picture, or enlarge it."""
