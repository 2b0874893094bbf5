"""The built-in tasks. Each uses the task API and nothing that another plugin could not."""
