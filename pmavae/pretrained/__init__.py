"""Weights: their names, where they are, how they are fetched, loaded and saved."""
