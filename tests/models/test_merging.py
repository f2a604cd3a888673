"""Which units a record calls merged, on four to eight rows."""

from __future__ import annotations

import pytest
import torch
from logged_runs import record, write_run
from tiny import processed, qwen3_vl

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.trace import Decision, merged_masks
from harness.store.database import Store
from harness.store.log_reader import encode_line
from methods import build
from methods.base import Budget, Selection


def over_four(unit: list[int], selection: Selection | None, packs: int = 1) -> Decision:
    return Decision(torch.zeros(len(unit), dtype=torch.int64), torch.tensor(unit), selection, packs)


def keep(*rows: int) -> Selection:
    return Selection(torch.tensor(rows))


def merge(rows: tuple[int, ...], assign: list[int], weight: list[float]) -> Selection:
    return Selection(torch.tensor(rows), torch.tensor(assign), torch.tensor(weight))


def test_what_is_only_kept_or_dropped_is_not_merged():
    assert merged_masks([("interface", over_four([0, 1, 2, 3], keep(0, 2)))], [0]) == {"interface": "0"}


def test_a_row_that_joins_a_slot_is_merged_and_one_without_weight_is_dropped():
    decision = merge((0, 2), [0, 0, 1, 1], [0.5, 0.5, 1.0, 0.0])
    assert merged_masks([("interface", over_four([0, 1, 2, 3], decision))], [0]) == {"interface": "2"}


def test_a_merged_unit_goes_when_the_token_that_it_is_part_of_goes():
    first, then = merge((0, 2), [0, 0, 1, 1], [0.5] * 4), keep(0)
    masks = merged_masks([("in-vit:1", over_four([0, 1, 2, 3], first)), ("in-llm:2", over_four([0, 2], then))], [0])
    assert masks == {"in-vit:1": "a", "in-llm:2": "2"}


def test_an_aggregate_holds_what_weighs_in_it_and_what_the_one_before_held():
    first = Selection(torch.tensor([0, 1]), aggregate=torch.tensor([0.0, 0.0, 0.0, 1.0]))
    carried = Selection(torch.tensor([0]), aggregate=torch.tensor([0.0, 0.5, 0.5]))
    decisions = [("in-vit:1", over_four([0, 1, 2, 3], first)), ("in-vit:2", over_four([0, 1, -1], carried))]
    assert merged_masks(decisions, [0]) == {"in-vit:1": "8", "in-vit:2": "a"}
    lost = Selection(torch.tensor([0]), aggregate=torch.tensor([0.0, 0.5, 0.0]))
    assert merged_masks([decisions[0], ("in-vit:2", over_four([0, 1, -1], lost))], [0])["in-vit:2"] == "2"


def test_an_image_that_loses_nothing_has_no_aggregate():
    image = torch.tensor([0, 0, 1, 1])
    gather = Selection(torch.tensor([0, 1, 2]), aggregate=torch.ones(4))
    then = Decision(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, -1]), keep(0, 2, 3))
    decisions = [("in-vit:1", Decision(image, torch.tensor([0, 1, 0, 1]), gather)), ("in-llm:1", then)]
    assert merged_masks(decisions, [0, 2]) == {"in-vit:1": "8", "in-llm:1": "8"}


def test_patches_that_are_packed_into_one_token_are_part_of_it():
    """Two units of two patches: patches 0 and 3 stay and share the token of unit 0."""
    stays = ("in-vit:1", over_four([0, 1, 2, 3], keep(0, 3), packs=2))
    packed = ("patches", over_four([0, 3], None, packs=2))
    joined = ("interface", over_four([0], merge((0,), [0], [1.0])))
    assert merged_masks([stays, packed, joined], [0]) == {"in-vit:1": "0", "interface": "2"}


@pytest.mark.parametrize(
    ("method", "some"),
    [("pool", True), ("tome", True), ("visionzip", True), ("pact", True), ("quietprune", True), ("divprune", False)],
)
def test_the_engine_notes_what_methods_merge(method: str, some: bool):
    qwen = Qwen3VL(qwen3_vl())
    pruner = build(method, **({"adapter": "untrained"} if method == "quietprune" else {}))
    engine, inputs = Engine(qwen, pruner), qwen.inputs(processed(((4, 6),)))
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", 12), inputs.shape)).realised
    last = list(realised.kept)[-1]
    assert list(realised.merged) == list(realised.kept)
    assert all(int(realised.merged[site], 16) & int(realised.kept[site], 16) == 0 for site in realised.kept)
    assert (int(realised.merged[last], 16) > 0) == some


def test_the_store_keeps_it_and_older_logs_say_nothing(tmp_path):
    store = Store(tmp_path / "x.duckdb")
    path = write_run(store.log_folder, samples=1)
    noted = {**vars(record(1)), "merged": {"interface": "ff"}}
    older = {key: value for key, value in vars(record(2)).items() if key != "merged"}
    with path.open("a") as log:
        log.write(encode_line("record", noted) + encode_line("record", older))
    store.ingest(path)
    kept = store.query("SELECT merged FROM samples ORDER BY sample_id")["merged"].tolist()
    assert kept == [{}, {"interface": "ff"}, {}]
