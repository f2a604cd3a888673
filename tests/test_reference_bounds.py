"""The oracle and the anti-oracle keep what they say."""

import pytest
import torch

from harness.records import Sample
from harness.reference.bounds import Cell, TargetFirst, table
from methods.base import INTERFACE, Shape, Site, View


def view(n, keep):
    zero = torch.zeros(n, dtype=torch.int64)
    return View(
        Site(INTERFACE), torch.zeros(n, 2), keep, zero, torch.arange(n), zero, torch.ones(n), Shape(((1, n),), 8, 6)
    )


@pytest.mark.parametrize(("keep", "wanted", "inside"), [(2, True, 2), (4, True, 3), (5, False, 0), (7, False, 2)])
def test_targets_go_first_or_last(keep, wanted, inside):
    target = frozenset({1, 4, 6})
    kept = TargetFirst(target, wanted).at_interface(view(8, keep)).keep.tolist()
    assert len(set(kept)) == keep and kept == sorted(kept)
    assert len(target & set(kept)) == inside


def test_the_table_says_the_majority_answer_and_the_differences():
    samples = [Sample(str(i), str(i // 2), "read", "?", "4" if i < 3 else "5", ("a",)) for i in range(6)]
    cells = [Cell("unpruned", "100%", (1.0,) * 6)]
    cells += [
        Cell(name, "25%", (right, 1.0) * 3)
        for name, right in (("oracle", 1.0), ("farthest-point", 1.0), ("random", 0.0), ("anti-oracle", 0.0))
    ]
    lines = list(table(cells, samples))
    assert lines[1] == "the majority answer (4) is right in 50.0%"
    assert "oracle - random: 50.0" in lines[-1] and "oracle - farthest-point: 0.0" in lines[-2]
