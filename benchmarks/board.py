"""Script time of the board's pages at a million sample rows: what a user waits for after a change of filter.

    python benchmarks/board.py [--rows 1000000] [--store X.duckdb]

Unit: milliseconds of processor time of one run of a page's script (Streamlit's AppTest: no browser, no network).
"first": the page opens, nothing is cached; "group": another benchmark, never shown before; "filter": another budget,
cost, run or sample of it; "again": nothing changes. "suite": the mean over four benchmarks, none of them shown before.
The store is synthetic: 5 benchmarks of 40 runs (13 methods at 3 budgets, no pruning), 5000 questions on 2500 images
each.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import duckdb
from streamlit.testing.v1 import AppTest

from harness.store.database import Store

METHODS = (
    *("random", "grid", "pool", "quietprune", "fastv", "divprune", "visionzip", "pact", "pyramiddrop", "sparsevlm"),
    *("vispruner", "saint", "tome"),
)
BUDGETS = (0.5, 0.25, 0.11)
BENCHMARKS = ("pope", "gqa", "textvqa_val", "ai2d", "mme")
CHANGES = {
    "overview": {"budget": "25%"},
    "pareto": {"cost": "FLOPs"},
    "method": {"method": "fastv"},
    "compare": {"b": "fastv:25%"},
    "samples": {"run": "fastv:25%"},
    "latency": {"timed": "25%"},
    "published": {"paper-method": "fastv"},
}
LIMIT_MS = 500


def synthetic(path: Path, rows: int) -> None:
    """A store of about that many sample rows, written straight into the tables (it has no logs)."""
    Store(path).rebuild()
    questions = max(rows // (len(BENCHMARKS) * (len(METHODS) * len(BUDGETS) + 1)), 10)
    with duckdb.connect(str(path)) as connection:
        connection.execute("SELECT setseed(0.5)")
        for group in BENCHMARKS:
            for method, budget in [("full", 1.0), *((name, budget) for budget in BUDGETS for name in METHODS)]:
                _run(connection, group, method, budget, questions)


def _run(connection: duckdb.DuckDBPyConnection, group: str, method: str, budget: float, questions: int) -> None:
    run_id = f"{group}{method}{budget}"
    share = 0.8 - 0.3 * (1 - budget) * (0.4 + METHODS.index(method) / 30 if method in METHODS else 0)
    connection.execute(
        """INSERT INTO samples SELECT ?, printf('q%06d', i), printf('image-%05d', i // 2), printf('kind-%d', i % 6),
           'yes', 'no', (random() < ?)::INT, 64, 32, 32.0, [32, 32], MAP {'interface': 'f0f0'}, 0.5, NULL, 0.1,
           MAP {'total': 1000000}, MAP {'interface': '0f0f'} FROM range(?) t(i)""",
        [run_id, share, questions],
    )
    known = {
        **{"run_id": run_id, "cell_id": run_id, "status": "ok", "message": "", "method": method, "preset": ""},
        **{"settings": "{}", "adapter": "", "model": "model", "model_revision": "r", "benchmark": group},
        **{
            "benchmark_revision": "b",
            "budget": f"{budget:.0%}",
            "budget_kind": "layer_average",
            "budget_value": budget,
        },
        **{"seed": 0, "sample_ids": group, "dtype": "float32", "attention": "sdpa", "image_backend": "pil"},
        **{
            "device": "cpu",
            "code": "c",
            "protocol": "1",
            "machine_id": "m",
            "started_at": "2026-01-01",
            "n": questions,
        },
        **{"errors": 0, "full_tokens": 64, "asked_tokens": 64 * budget, "realised_tokens": 64 * budget},
        **{"accuracy": share, "accuracy_low": share - 0.02, "accuracy_high": share + 0.02, "ra": share / 0.8},
        **{"ra_low": share / 0.8 - 0.02, "ra_high": share / 0.8 + 0.02, "flops_ratio": 0.3 + 0.7 * budget, "lr": 0.1},
    }
    names, marks = ", ".join(known), ", ".join("?" for _ in known)
    maps = "MAP {'vit': 1.0, 'llm_prefill': 2.0, 'total': 3.0}"
    connection.execute(
        f"INSERT INTO runs ({names}, base_ms, pruned_ms) VALUES ({marks}, {maps}, {maps})", list(known.values())
    )


def script_ms(shown: AppTest) -> float:
    """Milliseconds of processor time of one run of a page's script: of the clock's on a machine with nothing else."""
    begun = time.process_time()
    shown.run()
    assert not shown.exception, shown.exception[0].message
    return 1000 * (time.process_time() - begun)


def page_of(name: str, store: Path) -> AppTest:
    """A page that can be run again and again."""

    def script(name: str, store: str) -> None:
        from pathlib import Path

        from leaderboard.app import page

        page(name, Path(store))

    return AppTest.from_function(script, kwargs={"name": name, "store": str(store)}, default_timeout=120)


def main() -> None:
    """The command line."""
    logging.getLogger("streamlit").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--store", type=Path, help="where the synthetic store lies, or is made; default: nowhere after")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = asked.store or Path(folder) / "synthetic.duckdb"
        if not store.exists():
            synthetic(store, asked.rows)
        count = Store(store).query("SELECT count(*) AS n FROM samples")["n"][0]
        print(f"{count} sample rows")
        print(f"{'page':<12}{'first, ms':>12}{'group, ms':>12}{'filter, ms':>12}{'again, ms':>12}")
        script_ms(page_of("submit", store))  # imports
        for number, (name, change) in enumerate(CHANGES.items()):
            _clear()
            shown = page_of(name, store)
            timed = {"first": script_ms(shown), "group": None, "filter": None, "again": None}
            if name != "published":
                timed["group"] = script_ms(chosen(shown, on=shown.selectbox(key="pick:on").options[1 + number % 4]))
            timed["filter"] = script_ms(chosen(shown, **change))
            timed["again"] = script_ms(shown)
            told = "".join(f"{'–' if value is None else round(value):>12}" for value in timed.values())
            slow = [key for key in ("group", "filter") if (timed[key] or 0) > LIMIT_MS]
            print(f"{name:<12}{told}" + (f"  {', '.join(slow)}: over {LIMIT_MS} ms" if slow else ""))
        for name in ("overview", "pareto"):
            _clear()
            shown = page_of(name, store)
            script_ms(shown)
            suite = next(one for one in shown.selectbox(key="pick:on").options if " · suite " in one)
            print(f"{name}, suite: {script_ms(chosen(shown, on=suite)):.0f} ms, {script_ms(shown):.0f} ms again")


def chosen(shown: AppTest, **filters: str) -> AppTest:
    """The page with other filters, not run yet."""
    for key, value in filters.items():
        shown.selectbox(key=f"pick:{key}").set_value(value)
    return shown


def _clear() -> None:
    import streamlit

    streamlit.cache_data.clear()
    streamlit.cache_resource.clear()


if __name__ == "__main__":
    main()
