"""Every published way of reducing visual tokens, told as one Selection, by hand on 4 to 12 rows."""

from __future__ import annotations

import math

import pytest
import torch

from methods.selection import InvalidSelection, Selection, aggregate, reduce, reduce_sizes


def rows(*values: float) -> torch.Tensor:
    """Rows of two channels, (value, 10 x value): sums can be read off, and channels cannot be confused."""
    return torch.tensor([[value, 10 * value] for value in values], dtype=torch.float32)


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


# --- what `reduce` does -------------------------------------------------------------------------------------------


def test_kept_rows_come_out_in_the_order_of_keep_bit_for_bit():
    hidden = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(reduce(Selection(ints(4, 0, 2)), hidden), hidden[[4, 0, 2]])


def test_units_of_patches_are_reduced_patch_by_patch():
    hidden = torch.arange(24.0).view(3, 4, 2)
    out = reduce(Selection(ints(1), ints(0, 0, -1), torch.tensor([0.5, 0.5, 9.0])), hidden)
    assert torch.equal(out, (hidden[:1] + hidden[1:2]) / 2)


def test_dropped_rows_never_reach_a_slot_whatever_their_weight():
    hidden = rows(1, 2, math.inf, 4)
    out = reduce(Selection(ints(0, 3), ints(0, 0, -1, 1), torch.ones(4)), hidden)
    assert out.tolist() == rows(3, 4).tolist()


def test_without_weights_only_representatives_count():
    out = reduce(Selection(ints(1, 2), ints(0, 0, 1, 1)), rows(1, 2, 3, 4))
    assert out.tolist() == rows(2, 3).tolist()


def test_weights_are_not_normalised():
    assert reduce(Selection(ints(1), weight=torch.tensor([9.0, 3.0])), rows(1, 2)).tolist() == rows(6).tolist()


def test_low_precision_rows_are_weighed_and_summed_in_float32():
    hidden = torch.full((67, 2), 100.0).bfloat16()  # a third of 100 is 33.25 in bfloat16, and 67 of those 2224
    out = reduce(Selection(ints(0), ints(*[0] * 67), torch.full((67,), 1 / 3)), hidden)
    assert out.dtype == torch.bfloat16 and out.tolist() == [[2240, 2240]]  # the bfloat16 nearest to 2233.3


def test_an_empty_selection_leaves_no_rows():
    assert reduce(Selection(ints()), rows(1, 2)).shape == (0, 2)
    assert reduce(Selection(ints(), ints(-1, -1), torch.ones(2)), rows(1, 2)).shape == (0, 2)


def test_sizes_follow_the_assignment():
    size = torch.tensor([1.0, 2, 3, 4])
    assert reduce_sizes(Selection(ints(3, 0)), size).tolist() == [4, 1]
    assert reduce_sizes(Selection(ints(1, 3), ints(0, 0, -1, 1), torch.full((4,), 0.1)), size).tolist() == [3, 4]


def test_an_aggregate_weighs_rows_or_patches():
    hidden = torch.tensor([[[1.0], [2]], [[3], [4]]])
    assert aggregate(torch.tensor([0.5, 2.0]), hidden).tolist() == [0.5 * 3 + 2 * 7]
    assert aggregate(torch.tensor([[1.0, 0], [0.5, 0.25]]), hidden).tolist() == [1 + 1.5 + 1]
    assert aggregate(torch.tensor([0.5, 2.0]), rows(1, 2)).tolist() == [4.5, 45]


@pytest.mark.parametrize(
    ("selection", "complaint"),
    [
        (Selection(torch.tensor([0.0, 1.0])), "int64"),
        (Selection(torch.tensor([[0, 1]])), "keep must be"),
        (Selection(ints(0, 1, 2)), "asks for 2 of 4 rows, the selection leaves 3"),
        (Selection(ints(0, 1), assign=ints(0, 1, 1)), "assign must have one entry for each of the 4 rows, got 3"),
        (Selection(ints(0, 1), weight=torch.ones(5)), "weight"),
        (Selection(ints(0, 1), aggregate=torch.ones(3, 4)), "aggregate"),
    ],
)
def test_a_selection_that_contradicts_itself_or_the_plan_is_refused(selection, complaint):
    with pytest.raises(InvalidSelection, match=complaint):
        selection.validate(4, asked=2)


def test_the_aggregate_counts_towards_the_plan():
    gathered = Selection(ints(0), aggregate=torch.ones(4))
    gathered.validate(4, asked=2, aggregates=1)
    gathered.validate(4, asked=None, aggregates=1)
    with pytest.raises(InvalidSelection):
        gathered.validate(4, asked=2)


# --- what methods need of it ------------------------------------------------------------------------------------------


def test_pact_means_of_clusters_with_the_log_of_their_size_on_later_keys():
    # Clusters {0, 2, 3} around 2 and {1, 5} around 5; row 4 was pruned and not retrieved.
    assign = ints(0, 1, 0, 0, -1, 1)
    weight = 1 / torch.tensor([3.0, 2, 3, 3, 1, 2])
    selection = Selection(ints(2, 5), assign, weight, key_bias=True)
    torch.testing.assert_close(reduce(selection, rows(1, 2, 3, 5, 100, 4)), rows(3, 3))
    sizes = reduce_sizes(selection, torch.ones(6))
    assert sizes.log().tolist() == pytest.approx([math.log(3), math.log(2)])


def test_aim_two_stages_of_plain_means_are_one_selection():
    # 8 tokens 0..7, even tokens look for an odd partner. Stage 1, r = 2: 0 -> 1 and 4 -> 1; 2 and 6 stay, in ranking
    # order 6, 2. Output: 6, 2, then the odd ones (0+1+4)/3, 3, 5, 7. Stage 2 on those six, r = 2: slots 0 and 4 (even
    # places: 6 and token 5) join slot 1 (token 2) and slot 3 (token 3); slot 2 stays. Output: slot 2, slots 1, 3, 5.
    values = rows(0, 1, 2, 3, 4, 5, 6, 7)
    first = Selection(
        ints(6, 2, 1, 3, 5, 7), ints(2, 2, 1, 3, 2, 4, 0, 5), 1 / torch.tensor([3.0, 3, 1, 1, 3, 1, 1, 1])
    )
    second = Selection(ints(2, 1, 3, 5), ints(1, 1, 0, 2, 2, 3), 1 / torch.tensor([2.0, 2, 1, 2, 2, 1]))
    staged = reduce(second, reduce(first, values))
    torch.testing.assert_close(staged, rows(5 / 3, 4, 4, 7))
    composed = Selection(
        keep=ints(1, 2, 3, 7),
        assign=ints(0, 0, 1, 2, 0, 2, 1, 3),
        weight=torch.tensor([1 / 3, 1 / 3, 1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 2, 1]),
    )
    torch.testing.assert_close(reduce(composed, values), staged)
    # a mean of means is not the mean of its members: no normalisation may be applied by `reduce`
    uneven = Selection(ints(0), ints(0, 0, 0), torch.tensor([1 / 4, 1 / 4, 1 / 2]))
    torch.testing.assert_close(reduce(uneven, rows(1, 3, 6)), rows(4))


def test_sparsevlm_appends_recycled_tokens_after_the_kept_ones():
    # Kept 1, 4, 6. Of the dropped, {0, 3} and {5} are recycled around 3 and 5; 2 and 7 are gone.
    selection = Selection(
        keep=ints(1, 4, 6, 3, 5),
        assign=ints(3, 0, -1, 3, 1, 4, 2, -1),
        weight=torch.tensor([0.5, 1, 0, 0.5, 1, 1, 1, 0]),
        positions="renumber",
    )
    selection.validate(8, asked=5)
    torch.testing.assert_close(reduce(selection, rows(10, 1, 2, 20, 4, 5, 6, 7)), rows(1, 4, 6, 15, 5))


def test_visionzip_adds_the_mean_of_the_rest_to_a_target_and_keeps_cls():
    # Row 0 is CLS, a prefix row, one of the dominant tokens 0, 3, 4. Of the rest 1, 2, 5, 6: targets 1 and 5 (every
    # second); 2 and 6 join 1, none joins 5. A target is added to the mean of what it gets, not averaged in.
    selection = Selection(
        keep=ints(0, 3, 4, 1, 5), assign=ints(0, 3, 3, 1, 2, 4, 3), weight=torch.tensor([1, 1, 0.5, 1, 1, 1, 0.5])
    )
    selection.validate(7, asked=5)
    torch.testing.assert_close(reduce(selection, rows(9, 1, 2, 3, 4, 5, 6)), rows(9, 3, 4, 1 + (2 + 6) / 2, 5))


def test_quietprune_folds_the_old_aggregate_into_the_new_one():
    # Stage 1: five rows 1..5 with attention .1 .4 .1 .3 .1; rows 1 and 3 stay, the rest is gathered: (1 + 3 + 5)/3.
    first = Selection(ints(1, 3), aggregate=torch.tensor([0.1, 0, 0.1, 0, 0.1]) / 0.3)
    first.validate(5, asked=3, aggregates=1)
    hidden = rows(1, 2, 3, 4, 5)
    carried = aggregate(first.aggregate, hidden)
    torch.testing.assert_close(carried, rows(3)[0])
    # Stage 2 sees rows 2, 4 and the aggregate 3 with attention .5 .2 .6: 4 goes, (.2 x 4 + .6 x 3) / .8 = 3.25 stays.
    seen = torch.cat([reduce(first, hidden), carried[None]])
    second = Selection(ints(0), aggregate=torch.tensor([0, 0.2, 0.6]) / 0.8)
    second.validate(3, asked=2, aggregates=1)
    torch.testing.assert_close(reduce(second, seen), rows(2))
    torch.testing.assert_close(aggregate(second.aggregate, seen), rows(3.25)[0])


def test_tome_weighs_merges_by_size_twice_over():
    # Merge 0 with 1, then the pair (size 2) with 2: (2 x 1.5 + 3) / 3 = 2, the plain mean of the three.
    first = Selection(ints(2, 1, 3), ints(1, 1, 0, 2), torch.tensor([0.5, 0.5, 1, 1]), key_bias=True)
    hidden, size = reduce(first, rows(1, 2, 3, 4)), reduce_sizes(first, torch.ones(4))
    assert size.tolist() == [1, 2, 1]
    weight = size / torch.tensor([3.0, 3, 1])
    second = Selection(ints(1, 2), ints(0, 0, 1), weight, key_bias=True)
    torch.testing.assert_close(reduce(second, hidden), rows(2, 4))
    assert reduce_sizes(second, size).tolist() == [3, 1]


def test_unstructured_survivors_are_packed_in_fours_for_the_merger():
    # Rows are single patches: 12 patches of three 2x2 units. Eight survive, from all three units, and fill two slots.
    selection = Selection(ints(0, 1, 3, 4, 6, 7, 8, 11))
    selection.validate(12, asked=2 * 4)
    packed = reduce(selection, rows(*range(12))).unflatten(0, (-1, 4))  # (2 units, 4 patches, 2 channels)
    assert packed[..., 0].tolist() == [[0, 1, 3, 4], [6, 7, 8, 11]]
