"""The validity gate of the reference suite: is it the choice of tokens that decides whether a sign can be read?"""

import pytest

from harness.benchmarks import open_benchmark
from harness.models.loading import open_model
from harness.reference.bounds import measure
from harness.stats import paired_difference

pytestmark = pytest.mark.proof


def test_at_a_quarter_of_the_tokens_reading_depends_on_which_are_kept():
    """On at least 400 questions: oracle - farthest-point >= 15 points, oracle - random >= 20, and what is left
    without the target's tokens is within 5 points of always giving the majority answer."""
    benchmark = open_benchmark("reference")
    samples = [sample for sample in benchmark.samples if sample.category == "read"]
    assert len(samples) >= 400
    cells = measure(open_model("reference-a"), samples, benchmark, ["25%"])
    scores = {cell.selector: cell.scores for cell in cells}
    clusters = [sample.cluster for sample in samples]
    assert paired_difference(scores["oracle"], scores["farthest-point"], clusters).value >= 0.15
    assert paired_difference(scores["oracle"], scores["random"], clusters).value >= 0.20
    answers = [sample.answer for sample in samples]
    majority = max(answers.count(answer) for answer in set(answers)) / len(answers)
    assert abs(sum(scores["anti-oracle"]) / len(samples) - majority) <= 0.05
