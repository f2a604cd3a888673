"""PACT's golden files beyond `harness validate`: with the authors' rounded logarithms, ours is as close as any."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.models import sequence
from harness.validate.golden.case import GoldenCase
from harness.validate.golden.pact import prefilled
from methods.selection import reduce_sizes

RUNS = sorted((Path(__file__).parents[1] / "golden").glob("pact_e2e_case*.npz"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_with_logarithms_in_float16_prefill_and_decoding_equal_the_authors(path, monkeypatch):
    def rounded(selection, size):
        return reduce_sizes(selection, size).half().log().float().exp()

    monkeypatch.setattr(sequence, "reduce_sizes", rounded)
    case = GoldenCase(path)
    ours = prefilled(case)
    case.close("last_hidden_prefill", ours.hidden, 1e-4)
    (step,) = ours.decode(case.tensor("decode_embed"))
    case.close("last_hidden_decode", step, 1e-4)
