"""Judging a method file that nobody has read yet: in a process of its own, with limits, killed at the end."""

from harness.validate.sandbox.launch import has_walls, judge_files
from harness.validate.sandbox.verdict import Limits, Verdict

__all__ = ["Limits", "Verdict", "has_walls", "judge_files"]
