"""The report's page: one HTML file, with its style and its charts inside, that asks nothing of any network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

from harness.records.figures import ERROR, FAILED_BUDGET, INFEASIBLE, PARTIAL, REPORTED, UNSUPPORTED
from harness.report.chart import Point, Series, legend, stage_bars, trade_off
from harness.report.gather import FULL, RANDOM, Group, Line
from harness.report.markup import Markup, join, tag
from harness.report.tables import ACCURACY, COST, Column, by_category
from harness.store.lookup import Row, name_of

STAGES = ("vit", "projector", "select", "llm_prefill", "residual")
_TITLE = "Visual-token pruning: report"
_HOW = (
    "All methods of a group answered the same questions with the same model. Brackets are 95 % intervals, clustered by "
    "image and paired by question. RA is accuracy over the unpruned model's. Visual tokens are counted in every layer "
    "of the LLM while it runs, then averaged. A method beats random if McNemar's test against random choice at the "
    "same budget, corrected by Holm for all methods there, says so at 5 %. LR is the share of prefill time saved: "
    "below zero the method is slower than no pruning. On the front: how often, over resampled images, nothing else in "
    "the group is at least as accurate for no more prefill FLOPs. Stale: the code that gives answers has changed "
    "since. Indicative: a time that is not publishable, for want of an accelerator, of sessions or of pairs."
)
STATUS_WORDS = {
    FAILED_BUDGET: "failed its budget and is never ranked",
    INFEASIBLE: "cannot reach the budget",
    UNSUPPORTED: "needs what the model cannot give",
    ERROR: "could not go on",
    PARTIAL: "was stopped; the same command continues it",
    REPORTED: "is what another tool reports, at a budget that nobody measured; it is never ranked",
}


def page(groups: Sequence[Group], store: str, made: datetime) -> str:
    """The whole page. store: where the runs lie; made: the time to print."""
    runs = sum(len(group.lines) for group in groups)
    head = f"{runs} finished runs from {store}, {made:%Y-%m-%d %H:%M} UTC."
    body = [tag("h1", _TITLE), tag("p", head, class_="soft")]
    if groups:
        body += [tag("p", _HOW), *(_group(group) for group in groups)]
    else:
        body += [tag("p", "This store holds no runs yet. Make one, then report again:"), _commands([["run"]])]
    style = tag("style", Markup(files("harness.report").joinpath("style.css").read_text("utf-8")))
    meta = Markup(
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    whole = tag("html", tag("head", meta, tag("title", _TITLE), style), tag("body", *body), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _group(group: Group) -> Markup:
    title = f"{group.model} on {group.benchmark}"
    if not group.lines:
        parts = [tag("h2", title), tag("p", "No run of this group has finished.")]
    else:
        n = group.lines[0].run["n"]
        parts = [
            tag("h2", f"{title}: {n} questions, {group.images} images"),
            _table(group, ACCURACY),
            *_charts(group),
            tag("h3", "Cost"),
            _table(group, COST),
            *_stages(group),
            tag("h3", "Accuracy by kind of question"),
            _table(group, by_category(group)),
        ]
    return join(*parts, *_failures(group), *_circumstances(group))


def _table(group: Group, columns: Sequence[Column]) -> Markup:
    """The columns that say something of any run; budgets are set apart by a line."""
    columns = [column for column in columns if any(column.text(line) != "–" for line in group.lines)]
    head = tag(
        "tr", *(tag("th", column.title.replace(" %]", "\u00a0%]"), **_kind(column, group)) for column in columns)
    )
    rows, budget = [], None
    for line in group.lines:
        classes = ["control"] if line.run["method"] in (FULL, RANDOM) else []
        if budget not in (None, line.run["budget"]):
            classes.append("begins")
        budget = line.run["budget"]
        rows.append(tag("tr", *(_cell(column, line, group) for column in columns), class_=" ".join(classes)))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="wide")


def _kind(column: Column, group: Group) -> dict[str, str]:
    return {"class_": "words"} if all(isinstance(column.cell(line), str) for line in group.lines) else {}


def _cell(column: Column, line: Line, group: Group) -> Markup:
    text = column.text(line)
    if text in ("yes", "no, worse"):
        return tag("td", tag("span", text, class_="yes" if text == "yes" else "no"), class_="words")
    value, bracket, bounds = text.partition(" [") if column.bounds else (text, "", "")
    return tag("td", value, tag("span", bracket + bounds, class_="bounds") if bracket else None, **_kind(column, group))


def _charts(group: Group) -> list[Markup]:
    full = next((line for line in group.lines if line.run["method"] == FULL), None)
    series = _series(group, "realised_tokens")
    if full is None or not series:
        return []
    costs = {"realised_tokens": "visual tokens a layer (log)", "flops_ratio": "prefill FLOPs / unpruned"}
    figures = [
        tag(
            "figure",
            trade_off(_series(group, column), _point(full, column), title, "accuracy, %", "(log)" in title),
            tag("figcaption", f"Accuracy with its 95 % interval against {title}; grey: random choice."),
        )
        for column, title in costs.items()
        if full.run[column] is not None
    ]
    return [legend(series), tag("div", *figures, class_="charts")]


def _series(group: Group, cost: str) -> list[Series]:
    """One series a method, numbered within the group; runs that failed their budget are left out."""
    shown = [line for line in group.lines if line.ranked and line.run["method"] != FULL and line.run[cost]]
    names = sorted({line.name for line in shown if line.run["method"] != RANDOM})
    controls = sorted({line.name for line in shown if line.run["method"] == RANDOM})
    return [
        Series(
            name,
            names.index(name) if name in names else None,
            [_point(line, cost) for line in shown if line.name == name],
        )
        for name in controls + names
    ]


def _point(line: Line, cost: str) -> Point:
    run = line.run
    y, low, high = (100 * (run[key] if run[key] is not None else run["accuracy"]) for key in _BOUNDS)
    words = f"{line.name} {run['budget']}: {y:.1f} % [{low:.1f}, {high:.1f}], {cost.replace('_', ' ')} {run[cost]:.3g}"
    return Point(run[cost], y, low, high, words)


_BOUNDS = ("accuracy", "accuracy_low", "accuracy_high")


def _stages(group: Group) -> list[Markup]:
    timed = [line for line in group.lines if line.run["pruned_ms"] and line.run["method"] != FULL]
    if not timed:
        return []
    pairs = [(f"{line.name} {line.run['budget']}", line.run["base_ms"], line.run["pruned_ms"]) for line in timed]
    swatches = [tag("li", tag("span", class_=f"swatch s{at}"), stage) for at, stage in enumerate(STAGES)]
    words = "Medians; each method was timed in turns with no pruning in one process, so compare the two bars of a pair."
    if any(line.run["indicative"] for line in timed):
        words += " Indicative only: a publishable time needs an accelerator, 5 sessions and 30 pairs a shape."
    chart = tag("figure", stage_bars(pairs, STAGES), tag("figcaption", words))
    return [tag("h3", "Where the time goes"), tag("ul", *swatches, class_="legend"), chart]


def _failures(group: Group) -> list[Markup]:
    if not group.failures:
        return []
    told = []
    for run in group.failures:
        reason = f": {run['message']}" if run["message"] else ""
        told.append(tag("li", f"{name_of(run)} {STATUS_WORDS[run['status']]}{reason}"))
    return [tag("h3", "Without a result"), tag("ul", *told)]


def _circumstances(group: Group) -> list[Markup]:
    runs = [line.run for line in group.lines] or list(group.failures)
    facts: list[tuple[str, object]] = [
        (word.replace("_", " "), ", ".join(sorted({str(run[word]) for run in runs})))
        for word in ("model_revision", "benchmark_revision", "dtype", "attention", "device", "protocol")
    ]
    for machine, known in group.facts.items():
        parts = {**known.get("hardware", {}), **known.get("software", {})}
        told = ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in parts.items() if value)
        commit = f"; commit {known['git_commit'][:12]}" if known.get("git_commit") else ""
        dirty = ", with changes" if known.get("git_dirty") else ""
        facts.append((f"machine {machine[:8]}", told + commit + dirty))
    listed = [part for name, value in facts for part in (tag("dt", name), tag("dd", value))]
    commands = [_words(run) for run in runs if run["method"] not in (FULL, RANDOM)] or [_words(run) for run in runs]
    return [
        tag("h3", "Circumstances"),
        tag("dl", *listed),
        tag("h3", "How to reproduce"),
        tag("p", "No pruning and random choice come with each of these.", class_="soft"),
        _commands(commands),
    ]


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(run: Row) -> list[str]:
    """The words after `harness` that make a run."""
    method = f"{run['method']}:{run['preset']}" if run["preset"] else run["method"]
    words = ["run", "--method", method]
    if run["method"] != FULL:
        words += ["--budget", run["budget"]]
    words += ["--model", run["model"], "--benchmark", run["benchmark"]]
    if run["seed"]:
        words += ["--seed", str(run["seed"])]
    if run["sample_limit"]:
        words += ["--limit", str(run["sample_limit"])]
    for option, default in (("dtype", "float32"), ("attention", "sdpa")):
        if run[option] != default:
            words += [f"--{option}", run[option]]
    return words


def _commands(commands: Sequence[Sequence[str]]) -> Markup:
    return tag("pre", tag("code", "\n".join(shlex.join(["harness", *words]) for words in commands)))
