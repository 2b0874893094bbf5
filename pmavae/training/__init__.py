"""Making weights: the dataset, the linear start, the losses and the loop."""
