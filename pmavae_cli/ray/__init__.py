"""A run that is shared among the workers of a Ray cluster."""
