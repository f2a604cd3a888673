"""The controls that runs are told against, and which random control stands at a run's own hook point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.records.records import RANDOM, Record

# Hook point -> the method that chooses at random there, in the order in which a prompt meets them.
RANDOM_AT: Mapping[str, str] = {
    "pre-tokenization": "random_pre_tokenization",
    "in-vit": "random_in_vit",
    "interface": RANDOM,
    "in-llm": "random_in_llm",
}
CONTROLS = (*RANDOM_AT.values(), "grid", "pool", "downsample")


def cutting_hook(records: Iterable[Record]) -> str | None:
    """The first hook point at which tokens went, in any of a run's samples; None where none went, or none is noted.

    A method of several hook points is judged against random choice at this one: `RANDOM_AT[cutting_hook(records)]`.
    """
    hooks = {
        "in-vit" if label == "patches" else label.partition(":")[0]
        for record in records
        for label, mask in record.kept.items()
        if label == "patches" or int(mask, 16).bit_count() < record.full_tokens
    }
    return next((hook for hook in RANDOM_AT if hook in hooks), None)
