"""A folder of traces, read back: what `harness profile show` and the board tell of it. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.measure.traces import PROFILE, OperatorTime, StageTime, read_events, stage_tables, top_operators
from harness.records.errors import UsageError


@dataclass(frozen=True)
class Profile:
    """What a folder of traces says. title, shape_key: of the run and sample; stages, operators: arm -> rows."""

    title: str
    shape_key: str
    stages: Mapping[str, list[StageTime]]
    operators: Mapping[str, list[OperatorTime]]


def read_profile(folder: Path, top: int) -> Profile:
    """The traces of both arms, and the `top` operators of each. Raises UsageError where a file is missing or torn."""
    if not (folder / PROFILE).is_file():
        raise UsageError(f"no profile in {folder}; make one with: harness run --method NAME --profile {folder}")
    try:
        facts = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
        arms = {
            arm: [event for name in names for event in read_events(folder / arm / Path(name).name)]
            for arm, names in facts["traces"].items()
        }
        stages = stage_tables(arms, facts["measured_ms"])
        operators = {arm: top_operators(events, top) for arm, events in arms.items()}
        return Profile(str(facts["title"]), str(facts["shape_key"]), stages, operators)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(f"the profile in {folder} cannot be read ({problem}); make it again") from problem
