"""The command line: one verb a file. `main` is the only place that prints errors and chooses exit codes."""

from harness.cli.app import app, main

__all__ = ["app", "main"]
