"""Texture variation: a learnt conditional prior of z_detail, and samples of it."""
