"""The controls that a sweep runs beside its methods: random choice at every hook point, and shapes without a choice."""

from __future__ import annotations

from collections.abc import Mapping

from harness.records.records import RANDOM

# Hook point -> the method that chooses at random there, in the order in which a prompt meets them.
RANDOM_AT: Mapping[str, str] = {
    "pre-tokenization": "random_pre_tokenization",
    "in-vit": "random_in_vit",
    "interface": RANDOM,
    "in-llm": "random_in_llm",
}
CONTROLS = (*RANDOM_AT.values(), "grid", "pool", "downsample")
