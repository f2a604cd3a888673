"""Folders of traces beside a store, read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.measure.traces import PROFILE, OperatorTime, StageTime, read_events, stage_table, top_operators

FOLDER = "traces"
_BARS = {"llm": "llm_prefill"}  # range in a trace -> stage of a bar


@dataclass(frozen=True)
class Traces:
    """What a folder of traces says. stages, operators: arm ("base", "pruned") -> rows."""

    title: str
    shape_key: str
    stages: Mapping[str, list[StageTime]]
    operators: Mapping[str, list[OperatorTime]]

    def ms(self, arm: str) -> dict[str, float]:
        """Stage -> ms of an arm, without the profiler's own time."""
        return {_BARS.get(one.stage, one.stage): one.ms for one in self.stages.get(arm, [])}


def folders(store: Path) -> dict[str, Path]:
    """The profiles in the folder `traces` beside a store, by the names of their folders."""
    return {file.parent.name: file.parent for file in sorted((store.parent / FOLDER).glob(f"*/{PROFILE}"))}


def read_traces(folder: Path, top: int) -> Traces:
    """Both arms of a folder, and the `top` operators of each. Raises UsageError where a file is missing or torn."""
    try:
        facts = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
        stages, operators = {}, {}
        for arm, names in facts["traces"].items():
            events = [event for name in names for event in read_events(folder / arm / Path(name).name)]
            stages[arm] = stage_table(events, facts["measured_ms"][arm])
            operators[arm] = top_operators(events, top)
        return Traces(str(facts["title"]), str(facts["shape_key"]), stages, operators)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(f"the profile in {folder} cannot be read ({problem}); make it again") from problem
