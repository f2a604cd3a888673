"""What a user's words ask of one sample, in whole tokens."""

from __future__ import annotations

import numpy as np
import pytest

from harness.budget.spec import BudgetError, BudgetSpec, matches, solve_flops_ratio

WORDS = [
    ("50%", "layer_average", 0.5, "50%"),
    ("11.1%", "layer_average", 0.111, "11.1%"),
    ("100%", "layer_average", 1.0, "100%"),
    (" 25% ", "layer_average", 0.25, "25%"),
    ("0.5", "layer_average", 0.5, "50%"),
    (0.5, "layer_average", 0.5, "50%"),
    (np.float64(0.5), "layer_average", 0.5, "50%"),
    ("1.0", "layer_average", 1.0, "100%"),
    (1.0, "layer_average", 1.0, "100%"),
    ("1", "layer_average", 1, "1"),
    (1, "layer_average", 1, "1"),
    ("128", "layer_average", 128, "128"),
    (np.int64(128), "layer_average", 128, "128"),
    ("layer_average:128", "layer_average", 128, "128"),
    ("interface_kept:25%", "interface_kept", 0.25, "interface_kept:25%"),
    ("interface_kept:64", "interface_kept", 64, "interface_kept:64"),
    ("flops_ratio:0.4", "flops_ratio", 0.4, "flops_ratio:40%"),
    ("flops_ratio:40%", "flops_ratio", 0.4, "flops_ratio:40%"),
    ("native", "native", None, "native"),
]


@pytest.mark.parametrize("words, kind, value, printed", WORDS)
def test_words_are_read_and_printed(words, kind, value, printed):
    budget = BudgetSpec.parse(words)
    assert (budget.kind, budget.value, str(budget)) == (kind, value, printed)
    assert type(budget.value) is type(value), "a float is a ratio, an int is tokens"


@pytest.mark.parametrize(
    "words", ["50%", "128", "interface_kept:33.3%", "flops_ratio:0.123456789", "native", "0.1%", 1 / 3]
)
def test_what_is_printed_reads_back_the_same(words):
    budget = BudgetSpec.parse(words)
    assert BudgetSpec.parse(str(budget)) == budget


def test_a_percentage_and_its_ratio_are_one_budget():
    for tenths in range(1, 1001):
        percent, ratio = f"{tenths / 10}%", f"{tenths // 1000}.{tenths % 1000:03d}"
        assert BudgetSpec.parse(percent) == BudgetSpec.parse(ratio)


@pytest.mark.parametrize(
    "words, message",
    [
        ("0", "out of range"),
        ("0%", "out of range"),
        ("101%", "out of range"),
        ("1.5", "out of range"),
        (128.0, "out of range"),
        ("-5", "out of range"),
        ("nan", "out of range"),
        ("inf", "out of range"),
        ("", "cannot read"),
        ("half", "cannot read"),
        ("50 percent", "cannot read"),
        ("²", "cannot read"),
        ("layer_average:", "cannot read"),
        ("tokens:5", "unknown budget kind 'tokens'.*layer_average, interface_kept, flops_ratio"),
        ("native:5", "native takes no value"),
        ("flops_ratio:128", "needs a ratio"),
        (True, "cannot read"),
    ],
)
def test_words_without_meaning_are_refused_with_what_would_do(words, message):
    with pytest.raises(BudgetError, match=message):
        BudgetSpec.parse(words)


@pytest.mark.parametrize(
    "words, n, tokens",
    [
        ("50%", 64, 32),
        ("50%", 65, 32),  # 32.5 to even
        ("50%", 67, 34),  # 33.5 to even
        ("25%", 10, 2),  # 2.5 to even
        ("57.5%", 100, 58),  # 57.5 to even; 0.575 * 100 is 57.49... in floating point
        ("14.5%", 100, 14),  # 14.5 to even
        ("11%", 576, 63),
        ("100%", 576, 576),
        ("1%", 3, 1),  # never none
        ("128", 576, 128),
        ("128", 64, 64),
        ("interface_kept:25%", 64, 16),
    ],
)
def test_tokens_asked_of_one_sample(words, n, tokens):
    asked = BudgetSpec.parse(words).ask(n)
    assert asked == tokens and type(asked) is int


@pytest.mark.parametrize("words", ["native", "flops_ratio:0.4"])
def test_budgets_that_are_no_token_count_do_not_pretend(words):
    with pytest.raises(AssertionError):
        BudgetSpec.parse(words).ask(64)


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.25, 0.3, 0.5, 0.777, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_the_flops_solver_agrees_with_trying_every_count(ratio, n):
    def flops_ratio_at(tokens: int) -> float:
        return 0.2 + 0.8 * (tokens / n) ** 1.5

    best = min(range(1, n + 1), key=lambda tokens: (abs(flops_ratio_at(tokens) - ratio), tokens))
    assert solve_flops_ratio(ratio, n, flops_ratio_at) == best


def test_a_tie_goes_to_fewer_tokens():
    assert solve_flops_ratio(0.375, 4, lambda tokens: tokens / 4) == 1  # 0.25 and 0.5 are as near


def test_counts_of_equal_flops_go_to_fewer_tokens():
    flops = [0.1, 0.2, 0.2, 0.2, 0.9, 0.9]
    assert solve_flops_ratio(0.3, 6, lambda tokens: flops[tokens - 1]) == 2
    assert solve_flops_ratio(0.8, 6, lambda tokens: flops[tokens - 1]) == 5


def test_realised_tokens_match_within_one_of_the_layer_average():
    assert matches(32, (64, 0)) and matches(32, (33, 33)) and matches(32, (31, 31))
    assert not matches(32, (33, 34)) and not matches(32, (30, 31))
