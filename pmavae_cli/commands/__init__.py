"""Commands that are not tasks."""
