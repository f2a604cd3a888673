"""Turning a model's words into scores: rules for one answer, metrics over many, one idea a file."""

from harness.benchmarks.scoring.text import exact_match, majority_share, normalise

__all__ = ["exact_match", "majority_share", "normalise"]
