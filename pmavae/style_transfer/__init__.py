"""Refining a restyled picture by gradient descent on how it looks to a small classification network."""
