"""Every method at several budgets beside random and beside no pruning, from a sweep's store.

    harness sweep --methods all --budgets 80%,50%,25%,11% --no-timing --store table.duckdb
    python benchmarks/methods_table.py --store table.duckdb --write docs/methods-table.md

Differences are of accuracy, in points, paired by question and clustered by image, with 95 % intervals; a stochastic
method is averaged over its seeds, question by question. `target kept` is the share of the units under what is asked
about that are still there behind the method's last site (AIM ends with none by its schedule; merged is gone; downsample
keeps every unit of a smaller image). Two rows of one budget are compared with random, not with each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from harness.stats import Interval, paired_difference
from harness.store import Frames, load


def rows_of(frames: Frames) -> pd.DataFrame:
    """One row a method and budget: accuracy, differences, share of the target kept; or why there is none."""
    runs = frames.runs.set_index("run_id")
    samples = frames.samples.merge(runs[["method", "budget"]], left_on="run_id", right_index=True)
    means = samples.groupby(["method", "budget", "sample_id"]).agg(
        score=("score", "mean"), cluster=("cluster", "first")
    )
    done = [_row(key, group, runs, means) for key, group in runs.groupby(["method", "budget"]) if key[0] != "full"]
    return pd.DataFrame(done)


def _row(key: tuple[str, str], group: pd.DataFrame, runs: pd.DataFrame, means: pd.DataFrame) -> dict[str, object]:
    method, budget = key
    row: dict[str, object] = {"method": method, "budget": budget, "status": "/".join(sorted(set(group["status"])))}
    if row["status"] != "ok":
        return {**row, "floor": group["floor_tokens"].max()}
    own, chance = means.loc[key], means.loc[("random", budget)]
    full = means.loc[("full", runs.loc[runs["method"] == "full", "budget"].iloc[0])]
    row |= {"accuracy": group["accuracy"].mean(), "target_kept": group["recall_of_target"].mean()}
    row["over_full"] = _difference(own, full)
    row["over_random"] = None if method == "random" else _difference(own, chance)
    return row


def _difference(own: pd.DataFrame, other: pd.DataFrame) -> Interval:
    joined = own.merge(other, left_index=True, right_index=True, suffixes=("", "_other"))
    return paired_difference(joined["score"], joined["score_other"], joined["cluster"])


def table(rows: pd.DataFrame, budgets: list[str]) -> str:
    """Markdown, a section a budget, the most accurate first; * marks a difference whose interval leaves out 0."""
    parts = []
    for budget in budgets:
        here = rows[rows["budget"] == budget].sort_values("accuracy", ascending=False, na_position="last")
        parts += [
            f"## {budget} of the visual tokens, layer average\n",
            "| method | accuracy % | points over random | points over unpruned | target kept % |",
            "|---|---|---|---|---|",
            *(_line(row) for row in here.to_dict("records")),
            "",
        ]
    return "\n".join(parts)


def _line(row: dict) -> str:
    if row["status"] != "ok":
        floor = f", needs {row['floor']:g} of 64 tokens" if row["floor"] == row["floor"] else ""
        return f"| {row['method']} | {row['status']}{floor} | | | |"
    over = [_points(row[name]) for name in ("over_random", "over_full")]
    return f"| {row['method']} | {100 * row['accuracy']:.1f} | {over[0]} | {over[1]} | {100 * row['target_kept']:.0f} |"


def _points(interval: Interval | None) -> str:
    if interval is None:
        return ""
    sure = " *" if interval.low > 0 or interval.high < 0 else ""
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]{sure}"


def page(frames: Frames) -> str:
    runs = frames.runs
    rows = rows_of(frames)
    budgets = sorted(rows["budget"].unique(), key=lambda words: -float(words.rstrip("%")))
    full = runs[runs["method"] == "full"].iloc[0]
    about = (
        f"{full['model']} on {full['benchmark']}: {full['n']} questions, unpruned {100 * full['accuracy']:.1f} %. "
        f"Finished {runs['finished_at'].max():%Y-%m-%d %H:%M} UTC, code hash of the unpruned run {full['code']}."
    )
    made = __doc__.split("\n\n")
    return "\n\n".join(
        ["# All methods at matched budgets", f"Made by\n\n{made[1]}", about, made[2].strip(), table(rows, budgets)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    text = page(load(asked.store))
    if asked.write:
        asked.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
