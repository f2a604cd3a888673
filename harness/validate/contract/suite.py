"""The contract as a table of checks, and a method held against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.validate.contract import budgets, decisions, models, waits
from harness.validate.contract.subject import MISTAKES, Broken, Subject
from methods.base import Budget, MissingSignal, Pruner


@dataclass(frozen=True)
class Check:
    """One promise. sentence: what every method promises; run: words of what was seen. Raises Broken."""

    name: str
    sentence: str
    run: Callable[[Subject], str]


CHECKS = (
    Check("exact budget", "Each sample keeps the tokens asked for, on average over the LLM's layers.", budgets.exact),
    Check("floor", "A budget is refused only below the floor that the refusal names.", budgets.floor),
    Check("all tokens", "A budget of all tokens changes nothing; hooks can keep all rows.", budgets.all_tokens),
    Check("interface budget", "A budget of tokens entering the LLM is met, or refused.", budgets.interface_kept),
    Check("own rule", "A native run keeps to its plan, or is refused with words.", budgets.native),
    Check("selection", "Decisions name existing rows once, existing slots and finite weights.", decisions.selections),
    Check("determinism", "Equal prompts and seeds give equal decisions, whatever ran before.", decisions.repeatable),
    Check("no gradient", "Decisions need no gradient and carry none.", decisions.without_gradient),
    Check("no wait", "Decisions wait for the device only where the class declares it.", waits.undeclared),
    Check("views", "What a hook is shown stays as it was.", decisions.views_untouched),
    Check("precision", "float32 and bfloat16 both run and keep as many tokens.", models.precisions),
    Check("no trace", "After a run, model, registry and torch are as before.", models.no_trace),
    Check("FLOPs", "FLOPs told from the plan are those of what ran.", models.flops),
    Check("costs", "What a method declares of its own FLOPs is what is counted, to 1 %.", models.costs),
    Check("batch", "A ragged batch gives what single prompts give, or is refused.", models.batches),
)  # fmt: skip


@dataclass(frozen=True)
class CheckResult:
    """One check of a method on one family.

    status: "pass" | "fail" | "unsupported" (planning says that the family cannot be served); detail: what was seen,
    what is broken, or why it is not served.
    """

    check: str
    family: str
    status: str
    detail: str
    sentence: str


def check_method(
    pruner: Pruner, family: str, device: str = "cpu", names: tuple[str, ...] = ()
) -> Iterator[CheckResult]:
    """Every check (or those named) of a method on a tiny model of a family. Whatever the method raises is a result."""
    subject = Subject(pruner, family, device)
    reason = _unsupported(subject)
    for check in CHECKS:
        if not names or check.name in names:
            status, detail = ("unsupported", reason) if reason else _outcome(check, subject)
            yield CheckResult(check.name, family, status, detail, check.sentence)


def _unsupported(subject: Subject) -> str:
    """Why planning refuses the family, "" where it does not; any other mistake is left to the checks."""
    shape = subject.shape(subject.tiny.one_image[0])
    try:
        subject.pruner.plan(Budget("layer_average", shape.n // 2), shape)
    except MissingSignal as missing:
        return str(missing)
    except MISTAKES:
        pass
    return ""


def _outcome(check: Check, subject: Subject) -> tuple[str, str]:
    try:
        return "pass", check.run(subject)
    except Broken as broken:
        return "fail", str(broken)
    except MISTAKES as mistake:
        first = (str(mistake).splitlines() or [""])[0]
        return "fail", f"{type(mistake).__name__}: {first}"
