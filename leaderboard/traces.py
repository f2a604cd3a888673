"""Folders of traces beside a store, and an arm's stages as the board's bars name them."""

from __future__ import annotations

from pathlib import Path

from harness.latency.traces import PROFILE, Profile

FOLDER = "traces"
_BARS = {"llm": "llm_prefill"}  # range in a trace -> stage of a bar


def folders(store: Path) -> dict[str, Path]:
    """The profiles in the folder `traces` beside a store, by the names of their folders."""
    return {file.parent.name: file.parent for file in sorted((store.parent / FOLDER).glob(f"*/{PROFILE}"))}


def arm_ms(profile: Profile, arm: str) -> dict[str, float]:
    """Stage -> ms of an arm, without the profiler's own time."""
    return {_BARS.get(one.stage, one.stage): one.ms for one in profile.stages.get(arm, [])}
