"""Runs as one HTML file, its style inside, that asks nothing of any network and needs no extra."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from harness.records.figures import REPORTED
from harness.records.records import FULL, RANDOM
from harness.report.blocks import Block, Code, Heading, Html, Markup, Paragraph, Table, html_of, tag
from harness.report.gather import Group
from harness.report.ranking import ranked_blocks, unranked_blocks
from harness.report.tables import DETAILS, by_category, table
from harness.store.lookup import Row

PAGE_STYLE, BOARD_STYLE = (files("harness.report").joinpath(name) for name in ("page.css", "board.css"))
_TITLE = "Visual-token pruning"
_HOW = (
    "All methods of a group answered the same questions with the same model. Visual tokens are counted in every layer "
    "of the LLM while it runs, then averaged. LR is the share of prefill time saved: below zero the method is slower "
    "than no pruning. On the front: how often, over resampled images, nothing else in the group is at least as "
    "accurate for no more prefill FLOPs. Stale: the code that gives answers has changed since. Indicative: a time that "
    "is not publishable, for want of an accelerator, of sessions or of pairs."
)


def page(groups: Sequence[Group], source: str, made: datetime) -> str:
    """The whole page. source: where the runs lie; made: the time to print."""
    runs = sum(len(group.lines) for group in groups)
    blocks: list[Block] = [Paragraph(f"{runs} finished runs from {source}, {made:%Y-%m-%d %H:%M} UTC.", "soft")]
    if groups:
        blocks += [Paragraph(_HOW), *(block for group in groups for block in _blocks(group))]
    else:
        blocks += [Paragraph("There are no runs yet. Make one, then export again:"), Code("harness run --method fastv")]
    meta = Markup(
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    styles = (tag("style", Markup(style.read_text("utf-8"))) for style in (PAGE_STYLE, BOARD_STYLE))
    head = tag("head", meta, tag("title", _TITLE), *styles)
    body = tag("body", tag("main", tag("h1", _TITLE), *map(html_of, blocks)), class_="single")
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _blocks(group: Group) -> Iterator[Block]:
    counts = f": {group.lines[0].run['n']} questions, {group.images} images" if group.lines else ""
    yield Heading(f"{group.model} on {group.benchmark}{counts}")
    if not group.lines:
        yield Paragraph("No run of this group has finished.")
    for budget in group.budgets:
        yield Heading(f"At {budget}", 3)
        yield from ranked_blocks(group, budget)
    yield from unranked_blocks(group, [run for run in group.failures if run["status"] == REPORTED])
    if group.lines:
        yield Heading("Details", 3)
        yield table(DETAILS, group.lines, "details")
        yield Heading("Accuracy by kind of question", 3)
        yield table(by_category(group), group.lines, "by-category")
    yield from _circumstances(group)


def _circumstances(group: Group) -> Iterator[Block]:
    """Revisions, settings and machines of a group's runs, and the commands that make them."""
    runs = [line.run for line in group.lines] or list(group.failures)
    facts = [
        (word.replace("_", " "), ", ".join(sorted({str(run[word]) for run in runs})))
        for word in ("model_revision", "benchmark_revision", "dtype", "attention", "device", "protocol")
    ]
    machines = {run["machine_id"] for run in runs}
    facts += [(f"machine {one[:8]}", _machine(known)) for one, known in group.facts.items() if one in machines]
    yield Heading("Circumstances", 3)
    yield Table(("", "value"), facts, "circumstances")
    yield Heading("How to reproduce", 3)
    yield Paragraph("No pruning and random choice come with each of these.", "soft")
    named = [run for run in runs if run["method"] not in (FULL, RANDOM)] or runs
    commands = [command_words(run) for run in named]
    yield Html(tag("pre", tag("code", "\n".join(shlex.join(["harness", *words]) for words in commands))))


def _machine(known: dict[str, Any]) -> str:
    parts = {**known.get("hardware", {}), **known.get("software", {})}
    told = ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in parts.items() if value)
    commit = f"; commit {known['git_commit'][:12]}" if known.get("git_commit") else ""
    return told + commit + (", with changes" if known.get("git_dirty") else "")


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def command_words(run: Row) -> list[str]:
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
