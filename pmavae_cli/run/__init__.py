"""One run of a task: its plan, what is read, and what is written."""
