"""For lmms-eval's own command line: `--model pruned`, found by the entry point group `lmms_eval.models`.

    python -m lmms_eval --model pruned --tasks pope --model_args method=fastv,budget=128,model=llava-1.5-7b,spec=r...

Its response cache knows the words in model_args alone, and would answer for a method whose file has changed. So `spec`
is asked for: it names everything that answers depend on, and a wrong one is refused before the cache is opened. The
letter in front keeps lmms-eval from reading it as a number. Such runs leave token counts, not measured budgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NoReturn

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from harness.integrations.lmms_eval.native import sample_id, say
from harness.models.loading import open_model
from harness.records.errors import UsageError, nearest
from harness.records.records import Sample
from harness.request.open_run import OpenRun
from harness.request.opening import Bench
from harness.request.options import CellWords, ModelOptions, declared
from harness.request.request import Request
from methods import build


def manifest() -> ModelManifest:
    """What lmms-eval's registry asks of an entry point."""
    return ModelManifest(model_id="pruned", chat_class_path=f"{__name__}.{Pruned.__name__}")


class Pruned(lmms):
    """A model of ours under a pruner. settings: JSON, {"layer": 2}; words: of `CellWords`, as `harness run` takes them.

    Raises UsageError for a word that is none of them, and unless `spec` is today's.
    """

    is_simple = False

    def __init__(
        self,
        spec: str = "",
        settings: str | Mapping[str, Any] = "{}",
        batch_size: str | int = 1,
        max_batch_size: int | None = None,
        **words: Any,
    ):
        super().__init__()
        if str(batch_size) != "1":
            raise UsageError(f"batch size 1 alone, since scores move with it; got {batch_size}")
        typed = json.loads(settings) if isinstance(settings, str) else dict(settings)
        request = replace(Request.of(words_of(words)), benchmark="", settings=typed)
        opened = open_model(request.model, **request.part(ModelOptions))
        pruner = build(request.method, **typed)
        identity = request.specify(pruner, opened, SimpleNamespace(name="", revision=""), ())
        check_spec(spec, f"r{identity.run_id}")
        pruner = None if request.is_full else pruner
        self._run = OpenRun(Bench(opened, None, ()), pruner, request.budget, request.seed)

    def clean(self) -> None:
        """Nothing is held but the model, which goes with this object."""

    def generate_until(self, requests: list) -> list[GenerationResult]:
        return [self._said(*request.args[3:6], request) for request in requests]

    def _said(self, doc_id: int, task: str, split: str, request: Any) -> GenerationResult:
        sample, doc = Sample(sample_id(split, doc_id), "", "", "", "", ()), self.task_dict[task][split][doc_id]
        said = say(self._run, request, doc, sample)
        return GenerationResult(said.prediction, TokenCounts(said.prompt_tokens, said.new_tokens))

    def loglikelihood(self, requests: list) -> NoReturn:
        raise NotImplementedError("this model generates answers; choices by likelihood cannot be pruned here")

    def generate_until_multi_round(self, requests: list) -> NoReturn:
        raise NotImplementedError("this model answers single turns")


def words_of(given: Mapping[str, Any]) -> CellWords:
    """The cell that the words of lmms-eval's command line name. Raises UsageError for one that is not known."""
    known = ["method", "budget", "model", "revision", "seed", *declared(ModelOptions)]
    for name in given:
        if name not in known:
            raise UsageError(f"the model `pruned` has no argument {name!r}; nearest: {nearest(name, known)}")
    if "method" not in given:
        raise UsageError("say which method: --model_args method=NAME")
    return CellWords(**{name: value for name, value in given.items() if value is not None})


def check_spec(given: str, today: str) -> None:
    """Raise UsageError, naming today's, unless they are equal."""
    if given != today:
        why = "has changed, and cached answers with it" if given else "is missing"
        raise UsageError(f"spec {why}: method, model and code are {today} today; add spec={today} to model_args")
