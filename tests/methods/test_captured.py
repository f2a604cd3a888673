"""Loops as CUDA graphs: which call is recorded, on any machine; that graph and loop agree, on a GPU."""

from __future__ import annotations

import pytest
import torch

from methods import captured
from methods.captured import Captured
from methods.cdpruner import CDPruner, greedy
from methods.divprune import DivPrune, farthest_first
from methods.ops import cosines
from methods.vispruner import VisPruner, thinned


class OnAGpu:
    """What a `Captured` loop sees of a matrix on a GPU, without one."""

    def __init__(self, *shape: int):
        self.device, self.dtype, self.shape = torch.device("cuda"), torch.float32, shape


@pytest.fixture(autouse=True)
def graphs(monkeypatch) -> None:
    monkeypatch.setattr(captured, "GRAPHS", True)


def test_graphs_stay_off_until_they_have_met_a_gpu(monkeypatch):
    monkeypatch.undo()
    assert Captured(lambda matrix, k: k)(OnAGpu(9, 9), 5) == Captured(lambda matrix, k: k)(OnAGpu(9, 9), 5) == 5
    assert captured.GRAPHS is False


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What was done, call by call; recording is stubbed."""
    done: list[str] = []

    def record(loop, matrix, k):
        done.append(f"record {k}")
        return lambda like: done.append(f"replay {k}")

    monkeypatch.setattr(captured, "record", record)
    return done


def test_on_a_cpu_the_loop_runs_as_it_is():
    matrix = torch.ones(2, 2)
    run = Captured(lambda given, k: (given, k))
    assert run(matrix, 3) == run(matrix, 3) == (matrix, 3)


def test_a_shape_is_recorded_when_it_is_met_again_and_replayed_from_then_on(told):
    run = Captured(lambda matrix, k: told.append(f"loop {k}"))
    for k in (5, 7, 5, 5, 7):
        run(OnAGpu(9, 9), k)
    assert told == ["loop 5", "loop 7", "record 5", "replay 5", "replay 5", "record 7", "replay 7"]
    run(OnAGpu(8, 8), 5)
    assert told[-1] == "loop 5"


def test_only_the_four_latest_shapes_are_kept(told):
    run = Captured(lambda matrix, k: told.append(f"loop {k}"))
    for k in (1, 2, 3, 4, 1):
        run(OnAGpu(9, 9), k)
    assert told[-2:] == ["record 1", "replay 1"]
    for k in (5, 1, 2):  # 2 was forgotten for 5, and 1 was not
        run(OnAGpu(9, 9), k)
    assert told[-3:] == ["loop 5", "replay 1", "loop 2"]


def test_each_pruner_has_its_own_graphs():
    for method in (DivPrune, VisPruner, CDPruner):
        one, other = method(), method()
        assert one._loop is one._loop and one._loop is not other._loop and one == other


@pytest.mark.gpu
@pytest.mark.parametrize("loop", [farthest_first, thinned, greedy], ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("made_in_inference_mode", [False, True])
def test_a_graph_chooses_what_its_loop_chooses_again_and_again(loop, made_in_inference_mode):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    generator, run = torch.Generator().manual_seed(0), Captured(loop)
    for number in range(4):
        signs = torch.randint(0, 2, (200, 64), generator=generator).float().cuda() * 2 - 1  # exact cosines
        with torch.inference_mode(made_in_inference_mode and number < 3):
            matrix = cosines(signs)
            assert run(matrix, 60).tolist() == loop(matrix, 60).tolist()
