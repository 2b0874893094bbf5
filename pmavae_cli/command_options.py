"""Options that commands which are no tasks have in common; those of tasks are in options.py."""

from __future__ import annotations

import click

with_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
with_quiet = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
with_threads = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
