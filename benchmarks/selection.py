"""How fast the selection steps are beside the plain descriptions: `python benchmarks/selection.py [--only METHOD]`.

The baseline of each row is tests/literal/: the published description of the authors' algorithm, line by line. One
thread, float32, tokens in clusters, width 4096 (512 for the keys that PACT compares). Five pairs of one literal and one
own run in the order ABBA, three where a literal run takes over ten seconds; milliseconds are medians of the CPU time of
the process (other work may share the machine), literal / ours is the median of the pairs with their least and greatest.
`operations`: what the selection asks torch to do, views not counted; on an accelerator each is about one launch.
`waits`: how often it reads a value or a size back before it can go on, the last answer not counted.

AIM's scoring is that of a whole prefill of 28 layers of 28 heads, logits given: the description scores all tokens in
every layer, ours those alive, in the layers that drop some. Same result: the same tokens in the same order (AIM: what
the description's own scores would keep of the same logits; merged tokens and means within 1e-4).

--pairs N (default 5), --json for an array of rows, --rows FILE ... shows rows saved that way instead of measuring,
--write FILE for a Markdown page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the descriptions are the tests' oracle
import literal.aim
import literal.cdpruner
import literal.divprune
import literal.pact
import literal.vispruner

from harness.latency.machine import machine
from harness.models.attention import Capture
from harness.models.signals import read_signal
from methods import aim, cdpruner, divprune, vispruner
from methods.base import IN_LLM, Budget, Shape, Signal, Site, View
from methods.pact import PACT
from methods.selection import reduce

WIDTH = 4096
WAITS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default}


@dataclass(frozen=True)
class Case:
    """One selection in two versions, and whether their answers are the same."""

    method: str
    n: int
    k: int | str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    same: Callable[[Any, Any], bool] = lambda theirs, ours: theirs == ours


@dataclass(frozen=True)
class Row:
    """What is printed of a case."""

    method: str
    n: int
    k: int | str
    literal_ms: float
    ours_ms: float
    ratio: float
    ratio_min: float
    ratio_max: float
    same: bool
    literal_operations: int
    ours_operations: int
    literal_waits: int
    ours_waits: int


class Counting(TorchDispatchMode):
    """Counts dispatched operations that are no views, and those among them that wait for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        is_view = any(out.alias_info and not out.alias_info.is_write for out in func._schema.returns)
        self.operations += not is_view
        self.waits += func in WAITS
        return func(*args, **(kwargs or {}))


def clustered(n: int, width: int, seed: int = 0) -> Tensor:
    """(n, width) tokens of n // 4 kinds."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(n // 4, width, generator=generator)
    return kinds[torch.randint(n // 4, (n,), generator=generator)] + 0.45 * torch.randn(n, width, generator=generator)


def divprune_case(n: int, k: int) -> Case:
    tokens = clustered(n, WIDTH)
    return Case(
        "divprune",
        n,
        k,
        lambda: literal.divprune.divprune(tokens, k),
        lambda: divprune.max_min_subset(tokens, k).tolist(),
    )


def vispruner_case(n: int, k: int) -> Case:
    tokens, attention = clustered(n, WIDTH), torch.rand(n, generator=torch.Generator().manual_seed(1))
    return Case(
        "vispruner",
        n,
        k,
        lambda: literal.vispruner.vispruner(tokens, attention, k, 0.5),
        lambda: vispruner.VisPruner()._of_image(attention, tokens, k).tolist(),
    )


def cdpruner_case(n: int, k: int) -> Case:
    tokens, relevance = clustered(n, WIDTH), torch.rand(n, generator=torch.Generator().manual_seed(1))
    return Case(
        "cdpruner",
        n,
        k,
        lambda: literal.cdpruner.cdpruner(tokens, relevance, k),
        lambda: cdpruner.diverse_subset(tokens, relevance, k).tolist(),
    )


def dbdpc_case(m: int) -> Case:
    keys, hidden = clustered(m, 512), clustered(m, WIDTH, 1)
    pruner = PACT(prune=False, retrieve=False)
    shape = Shape(((1, m),), 8, 28)
    (cosines,) = pruner.needs(shape)

    def ours():
        signal = read_signal(cosines, Capture(keys[None, None], keys[None, None], 1.0), torch.arange(m), causal=True)
        selection = pruner.in_llm(view_of(pruner.site(shape), hidden, None, shape, cosines, signal))
        return selection.keep[selection.assign].tolist(), reduce(selection, hidden)

    def theirs():
        label = literal.pact.labels(keys, keys[:0], pruner.cutoff, pruner.alpha)
        return label, literal.pact.merged(hidden, label)[1]

    centres = len(set(ours()[0]))
    return Case("pact (dbdpc)", m, f"{centres} found", theirs, ours, labels_and_tokens)


def aim_merge_case(n: int) -> Case:
    tokens = clustered(n, WIDTH)

    def theirs():
        half = literal.aim.merge(tokens, n // 2, tokens)
        return [], literal.aim.merge(half, n // 4, half)

    return Case(
        "aim (merge)", n, n // 4, theirs, lambda: ([], reduce(aim.merging(tokens, n // 4), tokens)), labels_and_tokens
    )


def aim_scoring_case(n: int) -> Case:
    """All layers of a prefill whose n visual tokens were merged to a quarter: 16 text tokens before, 48 behind."""
    pruner, shape = aim.Aim(), Shape(((1, n),), 24, 28)
    plan = pruner.plan(Budget("native", 0), shape)
    merged, before = plan.entering[0], 16
    length = before + merged + 48
    logits = 0.3 * torch.randn(28, length, length, generator=torch.Generator().manual_seed(0))
    logits.masked_fill_(torch.ones(length, length).triu(1).bool(), -torch.inf)
    protected = torch.ones(length, dtype=torch.bool)
    protected[before : before + merged] = False
    masked = list(literal_layers(logits, protected))

    def theirs():
        return [literal.aim.kept(literal.aim.importance(z), protected, seen, rho) for z, seen, rho in masked]

    views = list(reduced_layers(pruner, plan.keeps, shape, logits, protected))

    def same(_, ours: list[list[int]]) -> bool:
        scores = [literal.aim.importance(next(iter(view.signals.values())))[: view.n] for view in views]
        best = [
            score.argsort(descending=True, stable=True)[: view.keep] for score, view in zip(scores, views, strict=True)
        ]
        return [sorted(kept.tolist()) for kept in best] == ours

    return Case(
        "aim (scoring)", n, "prefill", theirs, lambda: [pruner.in_llm(view).keep.tolist() for view in views], same
    )


def literal_layers(logits: Tensor, protected: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Logits of each layer with what earlier ones hid, the tokens not hidden, and the share that stays behind it."""
    seen, shown = torch.ones_like(protected), logits
    for layer in range(28):
        rho = literal.aim.retain_rate(layer, 14)
        yield shown, seen, rho
        after = literal.aim.kept(literal.aim.importance(shown), protected, seen, rho)
        if not torch.equal(after, seen):
            seen, shown = after, logits.masked_fill(~after, -torch.inf)


def reduced_layers(pruner: aim.Aim, keeps, shape: Shape, logits: Tensor, protected: Tensor) -> Iterator[View]:
    """The views of the sites in the LLM, each without what earlier ones dropped."""
    visual, text = (~protected).nonzero()[:, 0], protected.nonzero()[:, 0]
    for site in sorted(site for site in keeps if site.hook == IN_LLM):
        order = torch.cat([visual, text])
        signal = Signal("logits", layer=site.layer - 1, queries="all", per_head=True, at=site.layer)
        hidden = torch.zeros(len(visual), 1)
        view = view_of(site, hidden, keeps[site], shape, signal, logits[:, order][:, :, order].contiguous())
        yield view
        visual = visual[pruner.in_llm(view).keep]


def view_of(site: Site, hidden: Tensor, keep: int | None, shape: Shape, signal: Signal, value: Tensor) -> View:
    zeros = torch.zeros(len(hidden), dtype=torch.int64)
    unit = torch.arange(len(hidden))
    return View(site, hidden, keep, zeros, unit, zeros, torch.ones(len(hidden)), shape, signals={signal: value})


def labels_and_tokens(theirs: tuple[list[int], Tensor], ours: tuple[list[int], Tensor]) -> bool:
    return theirs[0] == ours[0] and torch.allclose(theirs[1], ours[1], atol=1e-4, rtol=0)


CASES = {
    "divprune": [lambda: divprune_case(576, 56), lambda: divprune_case(576, 288),
                 lambda: divprune_case(2880, 282), lambda: divprune_case(2880, 1440)],
    "vispruner": [lambda: vispruner_case(576, 64), lambda: vispruner_case(2880, 640)],
    "cdpruner": [lambda: cdpruner_case(576, 64), lambda: cdpruner_case(2880, 640)],
    "pact": [lambda: dbdpc_case(576), lambda: dbdpc_case(3000)],
    "aim": [lambda: aim_merge_case(576), lambda: aim_merge_case(2880),
            lambda: aim_scoring_case(576), lambda: aim_scoring_case(2880)],
}  # fmt: skip


def timed_ms(run: Callable[[], Any]) -> float:
    begun = time.process_time_ns()
    run()
    return (time.process_time_ns() - begun) / 1e6


def counted(run: Callable[[], Any]) -> tuple[Any, Counting]:
    with Counting() as counting:
        answer = run()
    return answer, counting


@torch.no_grad()
def measured(case: Case, pairs: int) -> Row:
    begun = time.process_time()
    theirs, their_count = counted(case.theirs)  # the warm-up as well
    long = time.process_time() - begun > 10
    ours, our_count = counted(case.ours)
    times = []
    for pair in range(min(pairs, 3) if long else pairs):
        arms = [case.theirs, case.ours] if pair % 2 == 0 else [case.ours, case.theirs]
        spent = {arm: timed_ms(arm) for arm in arms}
        times.append((spent[case.theirs], spent[case.ours]))
    ratios = [one / other for one, other in times]
    literal_ms, ours_ms = (statistics.median(arm) for arm in zip(*times, strict=True))
    return Row(
        case.method, case.n, case.k, literal_ms, ours_ms, statistics.median(ratios), min(ratios), max(ratios),
        case.same(theirs, ours), their_count.operations, our_count.operations, their_count.waits, our_count.waits,
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| selection | N | K | literal ms | ours ms | literal / ours | same | operations | waits |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        ratio = f"{row.ratio:.1f} ({row.ratio_min:.1f} to {row.ratio_max:.1f})"
        operations = f"{row.literal_operations} → {row.ours_operations}"
        waits = f"{row.literal_waits} → {row.ours_waits}"
        same = "yes" if row.same else "no"
        lines.append(
            f"| {row.method} | {row.n} | {row.k} | {row.literal_ms:.1f} | {row.ours_ms:.1f} | {ratio} | {same} "
            f"| {operations} | {waits} |"
        )
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """A Markdown page: what was measured, where and when, and the table."""
    assert __doc__ is not None
    where = machine()
    about = __doc__.split("\n\n")[1:3]
    made = f"Made by `python benchmarks/selection.py --write docs/selection.md` on {date.today()}, "
    made += f"{where.hardware['cpu']}, torch {where.software['torch']}."
    return "\n\n".join(["# Selection steps beside their descriptions", made, *about, table(rows)]) + "\n"


def measured_rows(only: str | None, pairs: int) -> Iterator[Row]:
    """A row for each case, told on stderr as it comes."""
    torch.set_num_threads(1)
    for make in (make for name, group in CASES.items() if only in (None, name) for make in group):
        row = measured(make(), pairs)
        print(f"{row.method} {row.n} done", file=sys.stderr)
        yield row


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=Path, nargs="+", default=[])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    saved = [Row(**row) for path in asked.rows for row in json.loads(path.read_text())]
    rows = saved or list(measured_rows(asked.only, asked.pairs))
    print(json.dumps([asdict(row) for row in rows]) if asked.json else table(rows))
    if asked.write:
        asked.write.write_text(page(rows))


if __name__ == "__main__":
    main()
