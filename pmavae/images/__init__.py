"""Pictures: pixels, reading them, and how near one is to another."""
