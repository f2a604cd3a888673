"""Every method at several budgets beside the controls and beside no pruning, from a sweep's store.

    make results
    python benchmarks/methods_table.py --store runs/board/board.duckdb --write docs/methods-table.md

RA and differences of accuracy (in points) are paired by question and clustered by image, with 95 % intervals; * leaves
out no difference. A stochastic method is averaged over its seeds, question by question. `read` is the accuracy on the
reading questions. `target kept` is the share of the units under what is asked about that are still there behind the
method's last site (AIM ends with none by its schedule; merged is gone; downsample keeps every unit of a smaller image).
Two rows of one budget are compared with the controls, not with each other. LR is the share of the prefill's time that
is saved (ViT and the method's own time included), here one thread of a shared CPU: indicative, and true of no GPU.
FLOPs ratio: of the whole prefill.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from harness.stats import Interval, paired_difference, ra_interval
from harness.store.database import Frames, load

CONTROLS = ("random", "pool", "downsample")


def rows_of(frames: Frames) -> pd.DataFrame:
    """One row a method and budget: accuracy, differences, share of the target kept; or why there is none."""
    runs = frames.runs.set_index("run_id")
    samples = frames.samples.merge(runs[["method", "budget"]], left_on="run_id", right_index=True)
    means = samples.groupby(["method", "budget", "sample_id"]).agg(
        score=("score", "mean"), cluster=("cluster", "first"), category=("category", "first")
    )
    done = [_row(key, group, runs, means) for key, group in runs.groupby(["method", "budget"]) if key[0] != "full"]
    return pd.DataFrame(done)


def _row(key: tuple[str, str], group: pd.DataFrame, runs: pd.DataFrame, means: pd.DataFrame) -> dict[str, object]:
    method, budget = key
    row: dict[str, object] = {"method": method, "budget": budget, "status": "/".join(sorted(set(group["status"])))}
    if row["status"] != "ok":
        return {**row, "floor": group["floor_tokens"].max()}
    own = means.loc[key]
    full = means.loc[("full", runs.loc[runs["method"] == "full", "budget"].iloc[0])].loc[own.index]
    row |= {"accuracy": group["accuracy"].mean(), "target_kept": group["recall_of_target"].mean()}
    row["flops_ratio"] = group["flops_ratio"].mean()
    ra = ra_interval(own["score"], full["score"], own["cluster"])
    row["ra"] = (ra.value, ra.low, ra.high)
    row["read"] = own.loc[own["category"] == "read", "score"].mean()
    for control in CONTROLS:
        there = control != method and (control, budget) in means.index.droplevel(2)
        row[control] = _difference(own, means.loc[(control, budget)]) if there else None
    timed = group[group["lr"].notna()]
    row["lr"] = tuple(timed.iloc[0][["lr", "lr_low", "lr_high"]]) if len(timed) else ()
    return row


def _difference(own: pd.DataFrame, other: pd.DataFrame) -> Interval:
    joined = own.merge(other, left_index=True, right_index=True, suffixes=("", "_other"))
    return paired_difference(joined["score"], joined["score_other"], joined["cluster"])


def table(rows: pd.DataFrame, budgets: list[str]) -> str:
    """Markdown, a section a budget, the most accurate first; * marks a difference whose interval leaves out 0."""
    over, parts = " | ".join(f"points over {one}" for one in CONTROLS), []
    for budget in budgets:
        here = rows[rows["budget"] == budget].sort_values("accuracy", ascending=False, na_position="last")
        parts += [
            f"### {budget} of the visual tokens, layer average\n",
            f"| method | accuracy % | RA % | read % | {over} | target kept % | LR % | FLOPs ratio |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in here.to_dict("records")),
            "",
        ]
    return "\n".join(parts)


def _line(row: dict) -> str:
    if row["status"] != "ok":
        floor = f", needs {row['floor']:g} tokens" if row["floor"] == row["floor"] else ""
        return f"| {row['method']} | {row['status']}{floor} | | | | | | | | |"
    over = " | ".join(_points(row[control]) for control in CONTROLS)
    accuracy, read, kept = (100 * row[name] for name in ("accuracy", "read", "target_kept"))
    cells = [
        row["method"],
        f"{accuracy:.1f}",
        _percent(row["ra"]),
        f"{read:.1f}",
        over,
        f"{kept:.0f}",
        _percent(row["lr"]),
    ]
    return f"| {' | '.join(cells)} | {row['flops_ratio']:.3f} |"


def _percent(bounds: tuple[float, ...]) -> str:
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * one for one in bounds)) if bounds else ""


def _points(interval: Interval | None) -> str:
    if interval is None:
        return ""
    sure = " *" if interval.low > 0 or interval.high < 0 else ""
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]{sure}"


def section(frames: Frames, model: str) -> str:
    """What one model of the store answered under today's code."""
    runs = frames.runs[(frames.runs["model"] == model) & ~frames.runs["stale"]]
    rows = rows_of(Frames(runs, frames.samples[frames.samples["run_id"].isin(runs["run_id"])], frames.latencies))
    budgets = sorted(rows["budget"].unique(), key=lambda words: -float(words.rstrip("%")))
    full = runs[runs["method"] == "full"].iloc[0]
    about = (
        f"{full['n']} questions of {full['benchmark']}, unpruned {100 * full['accuracy']:.1f} %. "
        f"Finished {runs['finished_at'].max():%Y-%m-%d %H:%M} UTC, code hash of the unpruned run {full['code']}."
    )
    return f"## {model}\n\n{about}\n\n{table(rows, budgets)}"


def page(frames: Frames) -> str:
    made = __doc__.split("\n\n")
    models = sorted(frames.runs["model"].unique())
    head = ["# All methods at matched budgets", f"Made by\n\n{made[1]}", made[2].strip()]
    return "\n\n".join([*head, *(section(frames, model) for model in models)])


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
