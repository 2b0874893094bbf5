"""Making weights: the corpus, the linear start, the losses and the loop."""
