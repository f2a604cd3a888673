"""A small store for the board's tests, a page of it, and the texts on that page."""

from __future__ import annotations

from pathlib import Path

from stored_runs import add_run, add_stopped, arm, new_store
from streamlit.testing.v1 import AppTest

from harness.figures import FAILED_BUDGET, INFEASIBLE, Figures

HOSTILE = "<img src=x onerror=alert(1)>[a](http://evil.example)'; DROP TABLE runs; --"
QUICK = {"benchmark": "reference-quick"}
QUESTIONS = 12
TIMED = {
    "latency_clock": "perf_counter_ns",
    "indicative": True,
    "indicative_because": "no accelerator",
    "base_ms": {"vit": 6.0, "llm_prefill": 4.0, "total": 10.0},
}


def small_store(folder: Path) -> Path:
    """A store in which divprune is best at 50 % and 25 %, fastv is worse than random and slower than no pruning."""
    store = new_store(folder)
    full = add_run(store, arm("full", **QUICK), [1.0] * QUESTIONS)
    slow = {"pruned_ms": {"vit": 6.0, "select": 3.0, "llm_prefill": 3.0, "total": 12.0}, "lr": -0.2}
    fast = {"pruned_ms": {"vit": 6.0, "select": 0.5, "llm_prefill": 2.5, "total": 9.0}, "lr": 0.1}
    for method, right, timed in (("divprune", 12, fast), ("random", 7, {}), ("fastv", 3, slow)):
        scores = [1.0] * right + [0.0] * (QUESTIONS - right)
        for budget in (0.5, 0.25):
            figures = {**TIMED, **timed, "lr_low": timed["lr"], "lr_high": timed["lr"]} if timed else {}
            add_run(store, arm(method, budget_value=budget, **QUICK), scores, full, **figures)
    add_run(store, arm("tome", **QUICK), [1.0] * QUESTIONS, full, status=FAILED_BUDGET)
    unreachable = Figures(INFEASIBLE, "pact needs at least 20 tokens", floor_tokens=20.0)
    add_stopped(store, arm("pact", budget_value=0.25, **QUICK), unreachable)
    return store.path


def page(name: str, store: Path, **url: str) -> AppTest:
    """A page as a browser would get it; no exception may have reached it."""

    def script(name: str, store: str) -> None:
        from pathlib import Path

        from leaderboard.app import page

        page(name, Path(store))

    shown = AppTest.from_function(script, kwargs={"name": name, "store": str(store)}, default_timeout=60)
    for key, value in url.items():
        shown.query_params[key] = value
    shown.run()
    assert not shown.exception, shown.exception[0].message
    return shown


def texts(shown: AppTest) -> list[str]:
    """What stands on a page as HTML, with tags of paragraphs and headings taken off, and its notes."""
    bodies = [html.proto.body for html in shown.get("html")]
    plain = [body.partition(">")[2].rpartition("</")[0] if body.startswith(("<p", "<h3")) else body for body in bodies]
    return plain + [note.value.replace("\\", "") for note in (*shown.info, *shown.warning)]
