"""The command line: tasks, their plugins, and the runner that reads, transforms and writes."""
