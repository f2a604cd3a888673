"""What a new method starts from: a file that works, and a test of it."""

from harness.authoring.scaffold import HOOKS, Scaffold, write

__all__ = ["HOOKS", "Scaffold", "write"]
