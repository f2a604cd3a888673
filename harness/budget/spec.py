"""Budgets: what a user asks, in words, and the whole number of visual tokens it means for one sample.

"50%" -> layer_average of half of each sample's tokens      "128" -> layer_average of min(128, n)
"interface_kept:25%"    "flops_ratio:0.4"    "native" (the method's own rule, measured, never matched)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

KINDS = ("layer_average", "interface_kept", "flops_ratio", "native")
TOLERANCE_TOKENS = 1.0  # realised against asked, per sample, of the layer average


class BudgetError(ValueError):
    """A budget that cannot be read, with what would be accepted."""


@dataclass(frozen=True)
class BudgetSpec:
    """What was asked. value: a ratio in (0, 1] (a float) or tokens (an int); None for native."""

    kind: str
    value: float | int | None

    @staticmethod
    def parse(words: str | float | int) -> BudgetSpec:
        """Read "[KIND:]VALUE". Raises BudgetError.

        VALUE: "50%", a float in (0, 1] = ratio, a whole number >= 1 = tokens ("1" is one, "1.0" is all).
        """
        text = repr(float(words)) if isinstance(words, float) else str(words).strip()
        kind, _, value = text.rpartition(":")
        if text == "native":
            return BudgetSpec("native", None)
        kind = kind or "layer_average"
        if kind == "native":
            raise BudgetError(f"native takes no value, got {value!r}; write native alone")
        if kind not in KINDS:
            raise BudgetError(f"unknown budget kind {kind!r}; use one of {', '.join(KINDS)}")
        parsed = _number(value)
        if kind == "flops_ratio" and not isinstance(parsed, float):
            raise BudgetError(f"flops_ratio needs a ratio in (0, 1], got {value!r}; e.g. flops_ratio:0.4")
        return BudgetSpec(kind, parsed)

    def __str__(self) -> str:
        if self.value is None:
            return self.kind  # native, or the unknown one of a run that another tool reports
        value = _percent(self.value) if isinstance(self.value, float) else str(self.value)
        return value if self.kind == "layer_average" else f"{self.kind}:{value}"

    def ask(self, n: int) -> int:
        """Visual tokens asked of a sample that has n: round half even of a ratio, min(K, n) of a count.

        At least 1. Not for flops_ratio (see `solve_flops_ratio`) nor native.
        """
        assert self.kind in ("layer_average", "interface_kept") and self.value is not None
        if isinstance(self.value, float):
            return max(1, round(Decimal(repr(self.value)) * n))  # as written: 57.5 % of 100 is a tie, in binary not
        return min(self.value, n)


def _number(text: str) -> float | int:
    try:
        if text.endswith("%"):
            ratio = float(Decimal(text[:-1]) / 100)  # "33.3%" and "0.333" are one budget
        elif text.isdigit():
            if int(text) >= 1:
                return int(text)
            ratio = 0.0
        else:
            ratio = float(text)
    except (ValueError, InvalidOperation):
        raise BudgetError(f"cannot read the budget {text!r}; write 50%, 0.5 or a number of tokens") from None
    if not 0 < ratio <= 1:
        raise BudgetError(f"the budget {text!r} is out of range; a ratio lies in (0, 1], tokens are >= 1")
    return ratio


def _percent(ratio: float) -> str:
    """A ratio in words that read back as the very same number."""
    words = f"{ratio * 100:.12g}%"
    return words if _number(words) == ratio else repr(ratio)


def solve_flops_ratio(ratio: float, n: int, flops_ratio_at: Callable[[int], float]) -> int:
    """The layer average (tokens) whose FLOPs ratio is nearest to `ratio`, by bisection; ties to fewer tokens.

    flops_ratio_at(tokens) must not decrease with tokens.
    """
    above = _first_reaching(ratio, n, flops_ratio_at)
    below = max(above - 1, 1)
    if abs(flops_ratio_at(below) - ratio) > abs(flops_ratio_at(above) - ratio):
        return above
    return _first_reaching(flops_ratio_at(below), below, flops_ratio_at)


def _first_reaching(ratio: float, n: int, flops_ratio_at: Callable[[int], float]) -> int:
    """The fewest of 1..n tokens whose FLOPs ratio is at least `ratio`; n if none."""
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        if flops_ratio_at(middle) < ratio:
            low = middle + 1
        else:
            high = middle
    return low


def matches(asked_tokens: float, entering: tuple[int, ...]) -> bool:
    """Whether the visual tokens that entered each LLM layer meet the asked layer average."""
    return abs(sum(entering) / len(entering) - asked_tokens) <= TOLERANCE_TOKENS
