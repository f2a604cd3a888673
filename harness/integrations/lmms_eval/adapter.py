"""The object that lmms-eval evaluates: it answers its requests one by one and notes each before the next begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NoReturn

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms

from harness.integrations.lmms_eval.answer import sample_id
from harness.integrations.lmms_eval.native import Answer
from harness.records.errors import Interrupted
from harness.records.progress import Stop, Watcher
from harness.records.records import Record
from harness.request.answering import sample_seed
from harness.store.log_writer import RunLog


class Adapter(lmms):
    """One run's model in lmms-eval's eyes. What the log holds already is not asked again.

    task: their task, which says what the answer should be; lookers: who is told of each answer, and who may stop it.
    """

    def __init__(self, answer: Answer, task: Any, log: RunLog, seed: int, lookers: tuple[Watcher, Stop]):
        super().__init__()
        self._answer, self._task, self._log, self._seed = answer, task, log, seed
        self._watcher, self._stop = lookers
        self._known: dict[str, Record] = dict(log.contents.records) if log.contents else {}

    def clean(self) -> None:
        """Nothing: the evaluator's own deletes every module here, and the model is shared by many runs."""

    def generate_until(self, requests: list) -> list[GenerationResult]:
        return [self._reached(request) for request in requests]

    def _reached(self, request: Any) -> GenerationResult:
        doc_id, task, split = request.args[3:6]
        name = sample_id(split, doc_id)
        if name in self._known:
            return GenerationResult(self._known[name].prediction, None)
        if self._stop():
            raise Interrupted(f"stopped after {len(self._known)} samples of {task}; nothing is lost")
        started = time.perf_counter()
        doc: Mapping[str, Any] = self.task_dict[task][split][doc_id]
        said = self._answer(request, doc, sample_seed(self._seed, name))
        record = said.record(name, doc, self._task.doc_to_target(doc), time.perf_counter() - started)
        self._log.append(record)
        self._known[name] = record
        self._watcher.advanced()
        return GenerationResult(said.text, TokenCounts(said.prompt_tokens, said.new_tokens))

    def loglikelihood(self, requests: list) -> NoReturn:
        raise NotImplementedError("the bridge generates answers; choices by likelihood cannot be pruned here")

    def generate_until_multi_round(self, requests: list) -> NoReturn:
        raise NotImplementedError("the bridge answers single turns")
