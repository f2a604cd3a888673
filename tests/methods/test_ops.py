from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from methods.base import PruningError, map_depths
from methods.ops import cosines, cosines_flops, share, top_k, unit


def test_unit_vectors_have_length_one_and_a_zero_row_stays_zero():
    out = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]]))
    torch.testing.assert_close(out, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]]))


def test_unit_works_in_float32():
    assert unit(torch.ones(1, 2, dtype=torch.float16)).dtype == torch.float32


def test_cosines_by_hand():
    out = cosines(torch.tensor([[2.0, 0.0], [0.0, 0.5], [3.0, 4.0]]))
    torch.testing.assert_close(out, torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8], [0.6, 0.8, 1.0]]))


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 600])
def test_cosines_made_in_strips_are_those_of_one_product_and_their_flops_are_what_torch_counts(n):
    x = torch.randn(n, 7, generator=torch.Generator().manual_seed(n))
    with FlopCounterMode(display=False) as counter:
        out = cosines(x)
    torch.testing.assert_close(out, unit(x) @ unit(x).T, atol=1e-6, rtol=0)
    assert torch.equal(out, out.T)
    assert counter.get_total_flops() == cosines_flops(n, 7) <= 2 * n * n * 7


def test_cosines_of_states_that_require_a_gradient_carry_none():
    x = torch.randn(3, 2, requires_grad=True)
    assert torch.equal(cosines(x), cosines(x.detach())) and not cosines(x).requires_grad


def test_cosines_of_exact_vectors_are_exact():
    x = torch.randint(0, 2, (600, 16), generator=torch.Generator().manual_seed(0)).float() * 2 - 1  # length 4
    assert torch.equal(cosines(x), (x @ x.T) / 16)


def test_top_k_is_ascending_by_index():
    assert top_k(torch.tensor([0.1, 0.9, 0.3, 0.8]), 3).tolist() == [1, 2, 3]


def test_top_k_ties_go_to_the_lower_index():
    assert top_k(torch.tensor([1.0, 2.0, 1.0, 1.0]), 2).tolist() == [0, 1]
    assert top_k(torch.zeros(5000), 7).tolist() == list(range(7))


def test_top_0_is_empty():
    assert top_k(torch.ones(3), 0).tolist() == []


def test_shares_are_in_proportion():
    assert share(30, (40, 20)) == (20, 10)
    assert share(11, (12, 5, 5)) == (6, 3, 2)  # 6, 2.5, 2.5: the tie goes to the earlier image


def test_equal_images_differ_by_one_token_at_most_the_earlier_first():
    assert share(8, (16, 16, 16)) == (3, 3, 2)


def test_small_images_may_get_nothing_unless_each_is_owed_something():
    assert share(3, (64, 4)) == (3, 0)
    assert share(3, (64, 4), least=1) == (2, 1)
    assert share(5, (64, 4, 1), least=2) == (2, 2, 1)


def seats(total: int, sizes: tuple[int, ...], least: int) -> tuple[int, ...]:
    """Sainte-Lague by filling seats one by one: what `share` abbreviates."""
    order = sorted((-1.0 if j < least else (2 * j + 1) / n, i) for i, n in enumerate(sizes) for j in range(n))
    taken = [i for _, i in order[:total]]
    return tuple(taken.count(i) for i in range(len(sizes)))


@pytest.mark.parametrize("sizes", [(7,), (6, 6, 2, 1), (5, 3, 3), (64, 4, 1), (10, 11, 12, 13), (3, 3, 3, 3)])
@pytest.mark.parametrize("least", [0, 1, 2])
def test_every_total_is_met_seat_by_seat_and_a_larger_one_never_gives_less(sizes, least):
    before = (0,) * len(sizes)
    for total in range(sum(min(least, n) for n in sizes), sum(sizes) + 1):
        now = share(total, sizes, least)
        assert now == seats(total, sizes, least) and sum(now) == total
        assert all(b <= a <= n for b, a, n in zip(before, now, sizes, strict=True))
        before = now


@pytest.mark.parametrize(("total", "least"), [(11, 0), (3, 2), (-1, 0)])
def test_an_impossible_total_is_refused(total, least):
    with pytest.raises(ValueError, match="cannot share"):
        share(total, (6, 4), least)


@pytest.mark.parametrize(
    ("indices", "depth", "layers", "mapped"),
    [
        ((2,), 32, 32, (2,)),
        ((2,), 32, 16, (1,)),
        ((1,), 32, 4, (1,)),
        ((8, 16, 24), 32, 16, (4, 8, 12)),
        ((2, 3), 32, 8, (1, 2)),
    ],
)
def test_depths_are_mapped_in_proportion_at_least_1_and_strictly_increasing(indices, depth, layers, mapped):
    assert map_depths(indices, depth, layers) == mapped


def test_depths_that_do_not_fit_are_refused():
    with pytest.raises(PruningError, match="do not fit a model of 2 layers"):
        map_depths((8, 16, 24), 32, 2)
