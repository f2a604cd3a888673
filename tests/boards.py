"""A small store for the board's tests, a page of it, and the texts on that page."""

from __future__ import annotations

from pathlib import Path

from stored_runs import add_run, add_stopped, arm, new_store
from streamlit.testing.v1 import AppTest

from harness.records.figures import FAILED_BUDGET, INFEASIBLE, Figures

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


def page_store(folder: Path) -> Path:
    """A store on questions of the embedded suite, so that there are images to draw over."""
    from dataclasses import replace

    from logged_runs import HERE, record

    from harness.reference.suite import load_questions
    from harness.run.figures import figures_of
    from harness.store.log_reader import read_log
    from harness.store.log_writer import RunLog

    questions = [question for question in load_questions() if question.quick][:QUESTIONS]
    store = new_store(folder)
    store.log_folder.mkdir(parents=True)
    full = arm("full", **QUICK)
    others = [
        arm(name, budget_value=budget, **QUICK) for name in ("divprune", "random", "fastv") for budget in (0.5, 0.25)
    ]
    for run in (full, *others):
        tokens = round(64 * run.budget_value)
        with RunLog.open(path := store.log_path(run.run_id), run, HERE) as log:
            for number, question in enumerate(questions):
                right = run.method in ("full", "divprune") or number % 2
                mask = {} if run is full else {"interface": "f0f0", "in-llm:2": "f000"}
                cost = {"total": tokens * 10**6, "llm": tokens * 10**5, "paper_2ndm": tokens * 10**5}
                seen = {"asked_tokens": tokens, "entering": (tokens,) * 16, "kept": mask, "flops": cost}
                answered = record(number, score=float(right), **seen)
                log.append(replace(answered, sample_id=question.id, cluster=question.image))
            figures = figures_of(read_log(path), read_log(store.log_path(full.run_id)), HERE.machine_id)
            timed = {**TIMED, "pruned_ms": {"vit": 6.0, "select": 0.5, "total": 9.0}, "lr": 0.1}
            log.finish(figures if run.method in ("full", "random") else replace(figures, **timed))
    store.rebuild()
    return store.path


def page(name: str, store: Path, results: Path | None = None, **url: str) -> AppTest:
    """A page as a browser would get it; no exception may have reached it."""

    def script(name: str, store: str, results: str) -> None:
        from pathlib import Path

        from leaderboard.app import page

        page(name, Path(store), Path(results) if results else None)

    places = {"store": str(store), "results": str(results or "")}
    shown = AppTest.from_function(script, kwargs={"name": name, **places}, default_timeout=60)
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
