"""The identity of a run: everything that its answers depend on, and the hash of it.

Apart from the values that answering hands on (records.py), so that a new field here leaves the code identity alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from harness.records.records import digest

PROTOCOL = "1"  # raised whenever an answer could change for a reason outside `code`
_LATER = "later"


def later(default: Any) -> Any:
    """A field that came after runs were stored: it enters the hash only where it differs from its default.

    default: a plain JSON value that means what every run did before the field was there, so that their ids stay.
    """
    return field(default=default, metadata={_LATER: True})


@dataclass(frozen=True)
class RunSpec:
    """The identity of a run. Two runs with equal specs must give equal records; `run_id` is its hash.

    settings: name -> value of every setting of the method; adapter: sha256 of its trained tensors, "" without any.
    sample_ids: sha256 of the sample ids in order. code: hash of the syntax that touches answers (provenance.py).
    A further field is declared by `later`.
    """

    method: str
    settings: Mapping[str, Any]
    model: str
    model_revision: str
    benchmark: str
    benchmark_revision: str
    budget_kind: str
    budget_value: float | int | None
    seed: int
    limit: int | None
    sample_ids: str
    dtype: str
    attention: str
    image_backend: str
    device: str
    code: str
    preset: str = ""
    adapter: str = ""
    protocol: str = PROTOCOL

    @property
    def run_id(self) -> str:
        return digest(self._hashed())

    @property
    def cell_id(self) -> str:
        """The identity without the code: runs of one cell with another `code` are stale versions of it."""
        return digest({key: value for key, value in self._hashed().items() if key != "code"})

    def _hashed(self) -> dict[str, Any]:
        """The fields that enter the hash: all but the later ones that say what was always so."""
        values = {one.name: (getattr(self, one.name), one) for one in fields(self)}
        return {
            name: value
            for name, (value, one) in values.items()
            if not (one.metadata.get(_LATER) and value == one.default)
        }
