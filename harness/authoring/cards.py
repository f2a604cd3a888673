"""Method cards: what a method is, where it acts, what it needs and costs, and where it departs from its authors.

Everything comes from the class and its module's docstring; nothing is written twice. `python -m harness.authoring.cards
--write docs/methods.md --golden tests/golden --results results` makes the page of all methods, with the state of
their golden files and what they keep on the board.
"""

from __future__ import annotations

import argparse
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import methods
from methods.base import Budget, Pruner, PruningError, Shape, Signal
from methods.settings import settings_of, spell

HALF = 0.5
MODELS = {
    "reference-a": Shape(((8, 8),), 8, 16, 4, vit_head_width=32, llm_head_width=32),
    "llava-1.5-7b": Shape(((24, 24),), 23, 32, 1, vit_cls=True, vit_head_width=64, llm_head_width=128),
}


@dataclass(frozen=True)
class Placement:
    """A method on one model at 50 %. sites: label -> visual tokens alive after it; signals: declared, in words;
    floor: least layer average of `n` tokens, None where the method has no budget but its own."""

    n: int
    sites: Mapping[str, int]
    signals: tuple[str, ...]
    floor: int | None
    infeasible: str = ""


@dataclass(frozen=True)
class Card:
    """A method in words. settings: defaults; takes: what each may be, in words.

    sections: paragraphs of its module's docstring by their headings, the first under "".
    """

    name: str
    title: str
    summary: str
    paper: str
    licence: str
    hooks: tuple[str, ...]
    granularity: str
    positions: str
    stochastic: bool
    cost: str
    waits: str
    presets: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    takes: Mapping[str, str]
    sections: Mapping[str, str]
    placements: Mapping[str, Placement]


def card_of(kind: type[Pruner]) -> Card:
    """The card of a method's class, its defaults placed on the models in `MODELS`."""
    pruner = kind()
    summary, sections = _sections(inspect.getdoc(inspect.getmodule(kind)) or inspect.getdoc(kind) or kind.name)
    return Card(
        name=kind.name,
        title=kind.title or kind.name,
        summary=summary,
        paper=kind.paper,
        licence=kind.licence,
        hooks=tuple(kind.hooks),
        granularity=kind.granularity,
        positions=kind.positions,
        stochastic=kind.stochastic,
        cost=kind.cost,
        waits=kind.synchronises,
        presets={name: dict(settings) for name, settings in kind.presets.items()},
        settings=pruner.settings(),
        takes={name: spell(hint) for name, hint in settings_of(kind).items()},
        sections=sections,
        placements={model: placed(pruner, shape) for model, shape in MODELS.items()},
    )


def placed(pruner: Pruner, shape: Shape) -> Placement:
    """Where a pruner acts on a model of this shape at half the tokens, and how low it can go."""
    feasible = [tokens for tokens in range(1, shape.n) if _feasible(pruner, tokens, shape)]
    floor = min(feasible, default=None)
    try:
        plan = pruner.plan(Budget("layer_average", round(shape.n * HALF)), shape)
    except PruningError as error:
        return Placement(shape.n, {}, (), floor, str(error))
    sites = {site.label: keep for site, keep in plan.keeps.items()}
    return Placement(shape.n, sites, tuple(_spelled(pruner.needs(shape))), floor)


def _feasible(pruner: Pruner, tokens: int, shape: Shape) -> bool:
    try:
        pruner.plan(Budget("layer_average", tokens), shape)
    except PruningError:
        return False
    return True


def _spelled(signals: Iterable[Signal]) -> Iterator[str]:
    """Signals in words, layers of one kind together: "vit:7 rows of received queries"."""
    layers: dict[tuple[str, str], list[int]] = {}
    for signal in signals:
        words = signal.kind
        if signal.kind in ("rows", "logits"):
            words += f" of {signal.queries} queries" + (" per head" if signal.per_head else "")
        layers.setdefault((signal.tower, words), []).append(signal.layer)
    for (tower, words), listed in layers.items():
        if words in ("features", "question"):
            yield words
        else:
            yield f"{words} in {tower} layer{'s' * (len(listed) > 1)} {', '.join(map(str, sorted(set(listed))))}"


def _sections(doc: str) -> tuple[str, dict[str, str]]:
    """First line, and the rest by heading: a paragraph that starts with "Departures" or "Ours" opens a section."""
    summary, _, rest = doc.partition("\n")
    sections: dict[str, str] = {}
    heading = ""
    for paragraph in rest.strip().split("\n\n"):
        first, _, behind = paragraph.partition("\n")
        for known in ("Departures", "Ours"):
            if first.startswith(known):
                heading, paragraph = known, (first[len(known) :].lstrip(" :") + "\n" + behind).strip()
        sections[heading] = f"{sections[heading]}\n\n{paragraph}" if heading in sections else paragraph
    return summary, sections


def golden_counts(folder: Path) -> dict[str, Counter[str]]:
    """How the golden files of a folder went, by method: status -> files."""
    from harness.validate.golden.folder import CHECKS, validate_folder

    counts: dict[str, Counter[str]] = {}
    for result in validate_folder(folder):
        method = next((method for prefix, (method, _) in CHECKS.items() if result.file.startswith(prefix)), None)
        if method is not None:  # weights have no check of their own
            counts.setdefault(method, Counter())[result.status] += 1
    return counts


def board_ra(results: Path) -> dict[str, dict[str, str]]:
    """RA in percent at half of the tokens, first seed, as submitted: method -> model -> "87.2 [84.1, 90.4]"."""
    from harness.submissions import read

    runs = read(results).runs
    half = runs[(runs["budget"] == "50%") & (runs["seed"] == 0) & (runs["preset"] == "") & (runs["method"] != "full")]
    found: dict[str, dict[str, str]] = {}
    for run in half.itertuples():
        spelled = f"{100 * run.ra:.1f} [{100 * run.ra_low:.1f}, {100 * run.ra_high:.1f}]"
        found.setdefault(run.method, {})[run.model] = spelled
    return found


def page(golden: Mapping[str, Counter[str]], board: Mapping[str, Mapping[str, str]]) -> str:
    """The Markdown page of all methods. golden: `golden_counts`, board: `board_ra`; {} to leave one out."""
    cards = [card_of(methods.get(name)) for name in methods.names()]
    head = (
        "# Methods\n\nMade by `python -m harness.authoring.cards --write docs/methods.md --golden tests/golden "
        "--results results`; do not edit. `harness show METHOD` says the same, with the runs of your store. "
        "Sites, signals and floors are those of the default settings on two shapes: the embedded "
        "model (64 visual tokens, 8 ViT blocks, 16 LLM layers) and "
        "LLaVA-1.5-7B's (576, 23 that run, 32). Words of cost: n visual tokens in, k kept, d width, d_k width of "
        "a head's key, h heads, T tokens of the prompt, q of the question. RA is the share of the unpruned accuracy "
        "that is left at half of the tokens, from results/submissions, where random's is of one seed.\n"
    )
    entries = (entry(card, golden.get(card.name, Counter())) for card in cards)
    return "\n".join([head, _overview(cards, golden, board), *entries])


def _overview(cards: Iterable[Card], golden: Mapping[str, Counter[str]], board: Mapping[str, Mapping[str, str]]) -> str:
    models = sorted({model for found in board.values() for model in found})
    head = ["method", "hook points", "floor of 576", "authors' outputs"]
    lines = [_row(head + [f"RA % at 50 %, {model}" for model in models]), "|---" * (len(head) + len(models)) + "|"]
    for card in cards:
        floor = card.placements["llava-1.5-7b"].floor
        cells = [f"[{card.name}](#{card.name})", ", ".join(card.hooks) or "–", "–" if floor is None else str(floor)]
        on_board = [board.get(card.name, {}).get(model, "–") for model in models]
        lines.append(_row([*cells, _golden_words(golden.get(card.name)), *on_board]))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _golden_words(counts: Counter[str] | None) -> str:
    if not counts:
        return "none known"
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(counts.items()))


def entry(card: Card, counts: Counter[str] | None = None) -> str:
    """A card as Markdown. counts: of its golden files, None to leave them out."""
    facts = {
        "Paper": card.paper or "none: a control",
        "Licence of the authors' code": card.licence or "–",
        "Hook points": ", ".join(card.hooks) or "–",
        "Rows in the ViT": "single patches" if card.granularity == "patch" else "",
        "Positions of survivors": card.positions,
        "Cost": card.cost,
        "Waits for the device": card.waits,
        "Golden files": "" if counts is None else _golden_words(counts),
        "Presets": "; ".join(f"`{name}` {_settings(values)}" for name, values in card.presets.items()),
        "Settings": _defaults(card),
    }
    lines = [f"## {card.name}", "", card.summary, ""]
    lines += [f"* {label}: {value}" for label, value in facts.items() if value]
    for model, where in card.placements.items():
        lines.append(f"* On {model} at 50 %: {_placement_words(where)}")
    for heading, text in card.sections.items():
        lines += ["", *([f"**{heading}**", ""] if heading else []), text]
    return "\n".join(lines) + "\n"


def _placement_words(where: Placement) -> str:
    if where.infeasible:
        return where.infeasible
    sites = ", ".join(f"{label} → {keep}" for label, keep in where.sites.items()) or "nothing"
    signals = f"; it asks for {', '.join(where.signals)}" if where.signals else ""
    return f"{sites} of {where.n} tokens{signals}; floor {where.floor}"


def _defaults(card: Card) -> str:
    """Each setting and its default, with its choices or range where it has some."""
    plain = ("int", "float", "str", "bool")
    words = {name: "" if what in plain else f" ({what})" for name, what in card.takes.items()}
    return ", ".join(f"{name}={value}{words[name]}" for name, value in card.settings.items()) or "none"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "none"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, help="folder of golden files to judge")
    parser.add_argument("--results", type=Path, help="folder of submissions whose RA is shown")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    asked = parser.parse_args()
    text = page(golden_counts(asked.golden) if asked.golden else {}, board_ra(asked.results) if asked.results else {})
    if asked.write:
        asked.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
