"""Picture files: their formats, and what comes with the pixels."""
