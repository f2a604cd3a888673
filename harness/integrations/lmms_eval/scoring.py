"""lmms-eval's own evaluator on answers that are all there: it asks, the log answers, its scoring judges."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import simple_evaluate

from harness.integrations.lmms_eval.native import sample_id
from harness.records.records import Record

if TYPE_CHECKING:
    from harness.integrations.lmms_eval.tasks import Task


class Answered(lmms):
    """A model in lmms-eval's eyes that knows every answer already."""

    def __init__(self, records: Mapping[str, Record], is_simple: bool):
        super().__init__()
        self._records = records
        self.is_simple = is_simple

    def clean(self) -> None:
        """Nothing is held."""

    def generate_until(self, requests: list) -> list[GenerationResult]:
        return [GenerationResult(self._records[sample_id(one.args[5], one.args[3])].prediction) for one in requests]

    def loglikelihood(self, requests: list) -> NoReturn:
        raise NotImplementedError("answers are generated; choices by likelihood cannot be pruned here")

    def generate_until_multi_round(self, requests: list) -> NoReturn:
        raise NotImplementedError("answers are single turns")


def evaluate(task: Task, records: Mapping[str, Record], folder: Path) -> Mapping[str, Any]:
    """Results of `simple_evaluate` for a run. folder: where scoring may write files for a test server.

    One evaluation holds one task and one run, since scoring may keep counts in its module (OCRBench does).
    """
    with redirect_stdout(sys.stderr):
        return simple_evaluate(
            model=Answered(records, task.is_simple),
            tasks=[task.opened()],
            task_manager=task.manager,
            limit=len(task.samples),
            use_cache=None,
            log_samples=True,
            bootstrap_iters=0,
            process_docs_parallel=1,
            cli_args=SimpleNamespace(
                output_path=str(folder), process_with_media=True, log_samples_suffix="", model="pruned"
            ),
        )
