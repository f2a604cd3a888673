"""The values that one stage of a run hands to the next: Sample -> Record (run_spec.py: RunSpec; figures.py: Figures).

Plain data from the standard library, so that logs, store and board read them without torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One question. images: what the benchmark finds its images by. boxes: target boxes in pixels, x0 y0 x1 y1.

    choices: the options, lettered A, B, C ... in order. answers: all that are accepted, where there are several.
    groups: label -> the group of rows that a metric judges together ("circular": copies of one question).
    """

    id: str
    cluster: str
    category: str
    question: str
    answer: str
    images: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """One sample's row. score in [0, 1], None where the benchmark scores whole runs only, or
    has not yet; error: None or what went wrong (then score is 0 and it counts as wrong).

    entering: visual tokens that entered each LLM layer, measured. asked_tokens: None in native mode.
    kept: site label ("interface", "in-llm:2", "pre-tokenization", "in-vit:5", "in-vit:5:attention") -> hex bit mask
    over the sample's units (bit i of the integer = unit i alive after that site, if only by one of its patches).
    merged: site label -> mask of the units that have no token of their own after that site but are part of another's;
    those in neither mask were dropped. Empty: not noted (records made before this was).
    Where single patches were packed into units, "patches" is the mask of those, bit unit x g + place in the unit.
    recall_of_target: share of the target's units alive at the end, None without boxes.
    seconds: wall time of this sample's accuracy pass (not part of equality of runs).
    flops: stage ("vit", "projector", "select", "llm", "total", "paper_2ndm") -> FLOPs of the prefill from what ran.
    """

    sample_id: str
    cluster: str
    category: str
    answer: str
    prediction: str
    score: float | None
    full_tokens: int
    asked_tokens: int | None
    entering: tuple[int, ...]
    kept: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)
    recall_of_target: float | None = None
    error: str | None = None
    seconds: float = 0.0
    flops: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptText:
    """Text tokens of a prompt: all of them, those behind the first visual token, and those of the user's question."""

    total: int
    behind: int
    question: int


@dataclass(frozen=True)
class Realised:
    """What one forward pass really ran, counted from the tensors.

    vit_tokens: [block][image] tokens that attended there, extra and prefix tokens included; vit_mlp_tokens: those that
    its MLP ran on, () where they are the same in all blocks. vit_attended: [block][sequence] tokens that attended to
    one another, () where these were the images. merged_units: rows of the projector (and of each
    deepstack merger). entering: visual tokens entering each LLM layer; text_tokens: the others.
    sites: (site label, n rows, k kept, width) of each decision; selection_flops: what they and their signals cost.
    kept, merged: site label -> hex mask, as in Record; which units were merged is no part of equality.
    """

    vit_tokens: tuple[tuple[int, ...], ...]
    merged_units: int
    entering: tuple[int, ...]
    text_tokens: int
    sites: tuple[tuple[str, int, int, int], ...] = ()
    selection_flops: int = 0
    kept: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict, compare=False)
    vit_mlp_tokens: tuple[tuple[int, ...], ...] = ()
    vit_attended: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class LatencyRow:
    """One measured stage of one repetition. pair: index of the pair; arm: "base" | "pruned"; order: position in the
    pair (0 first); control: True for an A/A pair (both arms base). stage: "vit", "projector", "select",
    "llm_prefill", "total", or the host's "wall" and "preprocess". clock: "device_event" | "perf_counter_ns"."""

    session: str
    shape_key: str
    pair: int
    arm: str
    order: int
    control: bool
    stage: str
    ms: float
    clock: str


def digest(value: Any) -> str:
    """The first 16 hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a record holds plain JSON values only, got {type(value).__name__}")


def sample_seed(seed: int, sample_id: str) -> int:
    """A 32-bit seed that depends on the run's seed and the sample alone, not on the order of the samples."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()[:4], "big")


STAGES = ("vit", "projector", "select", "llm_prefill")  # of a timed prefill, in the order in which they run
SHORT_STAGES = {"llm_prefill": "llm"}  # their names in `Record.flops` and in traces, where they differ
ARMS = ("base", "pruned")  # of a timed pair
PATCHES = "patches"  # the label of the mask over single patches, where a method packed them into units

FULL = "full"
RANDOM = "random"
BLIND = ":blind"  # ends a benchmark's name where its images were left out


@dataclass(frozen=True)
class ResourceRow:
    """One measured resource. name carries the unit: "peak_allocated_bytes", "kv_cache_bytes", "energy_joules"."""

    session: str
    arm: str
    name: str
    value: float


@dataclass(frozen=True)
class Environment:
    """Where and with what a run, or its continuation, ran.

    machine_id: id of the machine's fingerprint. facts: plain JSON (fingerprint, versions, git commit and dirty flag).
    """

    machine_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
