"""A run's id is the hash of everything that its answers depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace

import pytest
from logged_runs import SPEC, spec

from harness.records.records import digest
from harness.records.run_spec import RunSpec, later

CHANGES = {
    "method": "fastv",
    "settings": {"metric": "cosine", "layers": (1, 3)},
    "model": "reference-b",
    "model_revision": "r2",
    "benchmark": "pope",
    "benchmark_revision": "b2",
    "budget_kind": "interface_kept",
    "budget_value": 0.25,
    "seed": 1,
    "limit": 10,
    "sample_ids": "5b",
    "dtype": "bfloat16",
    "attention": "eager",
    "image_backend": "torchvision",
    "device": "cuda",
    "code": "c0df",
    "preset": "fast",
    "adapter": "ada97e4",
    "protocol": "2",
}


def test_the_id_is_a_hash_that_never_drifts():
    """A changed number here orphans every stored run: raise run_spec.PROTOCOL instead."""
    written = rb'{"a":"\u00fc","b":[1,2.5,null]}'
    assert digest({"b": [1, 2.5, None], "a": "ü"}) == hashlib.sha256(written).hexdigest()[:16]
    assert SPEC.run_id == "bf42b56c5caa7a53"


def test_every_field_is_tried_below():
    assert CHANGES.keys() == {field.name for field in fields(RunSpec)}


@pytest.mark.parametrize("name", CHANGES)
def test_changing_any_field_changes_the_id(name):
    assert spec(**{name: CHANGES[name]}).run_id != SPEC.run_id


@pytest.mark.parametrize("name", CHANGES)
def test_the_cell_is_the_run_without_its_code(name):
    assert (spec(**{name: CHANGES[name]}).cell_id == SPEC.cell_id) == (name == "code")


def test_the_order_of_settings_and_the_kind_of_sequence_do_not_matter():
    assert spec(settings={"layers": [1, 2], "metric": "cosine"}).run_id == SPEC.run_id


def test_all_tokens_and_one_token_are_not_the_same_run():
    assert spec(budget_value=1).run_id != spec(budget_value=1.0).run_id


def test_a_spec_that_went_through_json_has_the_same_id():
    assert RunSpec(**json.loads(json.dumps(asdict(SPEC)))).run_id == SPEC.run_id


def test_a_value_that_is_not_plain_is_refused():
    with pytest.raises(TypeError, match="plain JSON values only, got set"):
        digest({"layers": {1, 2}})


@dataclass(frozen=True)
class Wider(RunSpec):
    """A spec of a later version."""

    positions: str = later("original")


def test_a_later_field_leaves_the_ids_of_earlier_runs_and_counts_where_it_differs():
    same = Wider(**asdict(SPEC))
    assert (same.run_id, same.cell_id) == (SPEC.run_id, SPEC.cell_id)
    other = replace(same, positions="renumber")
    assert other.run_id != SPEC.run_id and other.cell_id != SPEC.cell_id
    assert Wider(**json.loads(json.dumps(asdict(same)))).run_id == SPEC.run_id
