"""The types that a pruning method and the harness hand to each other.

A method is a frozen dataclass (its fields are its settings) that subclasses `Pruner` and overrides only the
hook methods that it uses. It receives a `View` (tensors in) and answers with a `Selection` (a decision out).

Words: n visual rows of a view, k kept, g ViT patches of a row, d width, h heads, L layers, m text tokens.

A row of a view is a unit: the g patches behind one LLM visual token. A pruner whose `granularity` is "patch" sees
single patches instead at its in-vit sites, where g is then 1: hidden (n, 1, d), signals (n, 1, ...), `keep` in
patches, `unit` = unit x unit_patches + the patch's place in its unit. What it leaves of an image must be a multiple of
`shape.unit_patches` when the ViT ends (not at each site): the survivors are packed into units in the order in which
they stand, DeepStack's too, and a unit gets the LLM position of its first patch. Everywhere else, in `Plan.keeps` too,
rows and counts stay units. Such a pruner cannot aggregate.

    PruningError
    ├── BudgetInfeasible   the method cannot reach this budget; `.floor` says how low it goes
    ├── MissingSignal      this model family cannot give a signal that the method declared
    ├── InvalidSelection   a method returned a decision that contradicts itself or its plan
    └── UnknownMethod      no such method, file or class
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from methods.selection import InvalidSelection, PruningError, Selection
from methods.settings import Least, Range, check

PRE_TOKENIZATION = "pre-tokenization"
IN_VIT = "in-vit"
INTERFACE = "interface"
IN_LLM = "in-llm"
HOOKS = (PRE_TOKENIZATION, IN_VIT, INTERFACE, IN_LLM)

VISUAL, AGGREGATE, PREFIX = 0, 1, 2  # View.kind

__all__ = [
    "AGGREGATE",
    "HOOKS",
    "INTERFACE",
    "IN_LLM",
    "IN_VIT",
    "PREFIX",
    "PRE_TOKENIZATION",
    "VISUAL",
    "Budget",
    "BudgetInfeasible",
    "InvalidSelection",
    "Least",
    "MissingSignal",
    "ModelInfo",
    "Plan",
    "Pruner",
    "PruningError",
    "Range",
    "Resize",
    "Selection",
    "Shape",
    "Signal",
    "Site",
    "UnknownMethod",
    "View",
    "map_depths",
    "one_site_plan",
    "rows_of_unit",
    "shows_cls_rows",
]


class BudgetInfeasible(PruningError):
    """The method cannot reach the asked budget. `floor` is the least layer average (tokens) that it can."""

    def __init__(self, message: str, floor: float):
        super().__init__(message)
        self.floor = floor


class MissingSignal(PruningError):
    """A declared signal does not exist on this model family."""


class UnknownMethod(PruningError):
    """A name that is no method, or a path that holds no pruner."""


@dataclass(frozen=True, order=True)
class Site:
    """Where a pruner acts: a hook point and a layer.

    in-vit: after block `layer` (0-based) or, with after="attention", between its attention (residual sum included)
    and its MLP, which then runs on the survivors alone.
    in-llm: on the input of decoder layer `layer` (0-based). Elsewhere `layer` is 0.
    """

    hook: str
    layer: int = 0
    after: str = "block"

    @property
    def label(self) -> str:
        """The site in words: "interface", "pre-tokenization", "in-vit:5", "in-vit:5:attention", "in-llm:2"."""
        words = f"{self.hook}:{self.layer}" if self.hook in (IN_VIT, IN_LLM) else self.hook
        return words if self.after == "block" else f"{words}:{self.after}"


@dataclass(frozen=True)
class Signal:
    """An extra tensor that a view carries on request. Columns are the rows of the view that receives it.

    kind     "rows": softmax attention, float32, over all keys of the layer, visual columns returned;
             "logits": the same before softmax; "queries" / "keys": after (rope=True) or before rotation;
             "features": input of the projector, (n, g, d_vit); "question": embeddings of the user's text, (q, d);
             "cosines": between the rows' keys, kv heads side by side, float32, (n, n);
             "affinity": products of the LLM's input embeddings, visual x text behind the first visual token, (n of
             layer 0, m); "gravity": logits of queries and keys of ones, which depend on positions alone, text x visual;
             of the tower "clip": "patches" (n, e) and "text" (segments, e), embeddings by the model in `Pruner.clip`.
    tower    "vit" | "llm" | "clip" (at the interface), layer 0-based. A decoder layer that has not run yet is peeked at
             (input norm and projections on the current states), which is what the layer itself will compute. A ViT
             block gives its signals from its own attention on: to the site after="attention" of that block, to later
             in-vit sites and to the interface, up to the next selection in the ViT, which ends them. A block that
             attends within windows gives of rows the "received" ones alone; what other windows give is 0.
    queries  which query rows: "last" (the prompt's last token), "text" (after the first visual token), "visual",
             "extra" (tokens of `extra_vit_tokens`), "cls"; "mean": one query, the mean of all tokens up to the last
             visual one, which attends to just these; "received": the mean over all visual rows of the image ("rows"
             of the ViT only, of every tower); "cls": the tower's own token, where `shape.vit_cls` (its column is
             left out and not made up for); "all": every token of the layer, as rows and as columns, the n visual ones
             of the view first and the others behind them (the LLM only).
    per_head False: mean over heads.
    rope     False: before rotation; in the LLM for a layer that has not run yet only.
    at       the layer of the in-LLM site that reads it; None: every in-LLM site computes it.

    Shapes with mean heads: one query ("last", "mean", "extra", "cls", "received") -> (n,) in the LLM, (n, g) in the
    ViT, the g patches of each unit; several -> a leading q. per_head adds a leading h. "queries" / "keys" ->
    (n, h, head_dim) in the LLM (h = the tensor's own heads, so kv heads for keys), (n, g, h, head_dim) in the ViT.
    An aggregate row of a ViT view is one token: its value stands in patch 0, the rest is 0.
    """

    kind: str
    tower: str = "llm"
    layer: int = 0
    queries: str = "last"
    per_head: bool = False
    rope: bool = True
    at: int | None = None


@dataclass(frozen=True)
class Shape:
    """What planning knows of one sample on one model. grids: (rows, columns) of units of each image.

    vit_cls: the ViT has a CLS token, so that it can give rows of "cls" queries. vit_head_width, llm_head_width: of one
    head's keys, for the FLOPs of methods that compare them (0: told without them).
    shows_cls: where one unit is one patch, the projector can take the CLS token too. A pruner with `cls_row` then finds
    it at the interface as the first row of each image: kind PREFIX, unit -1, 0 in signals of the ViT. Kept, it is a
    visual token like any other and counts; not kept, it is dropped as it would be without the pruner.
    Where the ViT sees an image in tiles (LLaVA-NeXT), some visual tokens are no ViT tokens (newlines): vit_grids are
    the units of each image that are, () = all; tiles: (image, patches, units) of each tile, () = an image is one. Views
    in front of the interface then have the shape `in_vit`.
    llm_heads: of queries; text_tokens: of the prompt. For the FLOPs of methods that weigh all tokens' attention.
    """

    grids: tuple[tuple[int, int], ...]
    vit_layers: int
    llm_layers: int
    unit_patches: int = 4
    vit_cls: bool = False
    vit_head_width: int = 0
    llm_head_width: int = 0
    vit_grids: tuple[tuple[int, int], ...] = ()
    tiles: tuple[tuple[int, int, int], ...] = ()
    llm_heads: int = 0
    text_tokens: int = 0

    @property
    def in_vit(self) -> Shape:
        """The same sample as views in front of the interface see it."""
        return replace(self, grids=self.vit_grids, vit_grids=()) if self.vit_grids else self

    @property
    def images(self) -> tuple[int, ...]:
        return tuple(rows * columns for rows, columns in self.grids)

    @property
    def n(self) -> int:
        return sum(self.images)

    @property
    def shows_cls(self) -> bool:
        return self.vit_cls and self.unit_patches == 1 and not self.tiles


@dataclass(frozen=True)
class Resize:
    """The size that one image is resampled to before its patches are cut, in units: height x width visual tokens."""

    height: int
    width: int


@dataclass(frozen=True)
class Budget:
    """Visual tokens asked of one sample. kind: "layer_average" | "interface_kept" | "native" (tokens unused)."""

    kind: str
    tokens: int


@dataclass(frozen=True)
class Plan:
    """The integers that meet a budget.

    keeps: for each site, the visual tokens alive after it, all images of the sample and aggregates included
    (None in native mode: the method decides; at most so many where images are resized).
    entering: visual tokens entering each LLM layer; () if unknown.
    """

    keeps: Mapping[Site, int | None] = field(default_factory=dict)
    entering: tuple[int, ...] = ()

    @property
    def layer_average(self) -> float:
        return sum(self.entering) / len(self.entering)

    def layers_of(self, hook: str) -> tuple[int, ...]:
        return tuple(sorted(site.layer for site in self.keeps if site.hook == hook))


@dataclass(frozen=True)
class ModelInfo:
    """What `Pruner.prepare` may know of a model: read-only, no module except the projector's own tensors.

    projector: names as in the family's projector ("norm", "linear_fc1", ...) -> parameter tensor.
    projector_hash: sha256 of the projector's and embedding's weights, which adapters are bound to.
    folder: local folder or id that the model came from, None if built in memory.
    adapter: tensors trained for this method on this very model (the harness checked the hash), None if there are none.
    """

    family: str
    vit_layers: int
    llm_layers: int
    vit_width: int
    llm_width: int
    unit_patches: int
    rope: str  # "1d" | "mrope"
    projector: Mapping[str, Tensor] = field(default_factory=dict)
    projector_hash: str = ""
    folder: str | None = None
    adapter: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class View:
    """The read-only inputs of a pruner at one site. All tensors share a device; rows are in raster order per image.

    hidden  pre-tokenization: pixels in [0, 1], (n, 3, u, u) with u the unit's side in pixels; in-vit: (n, g, d)
            (an aggregate row repeats its one token g times; CLS is never a row here); interface and in-llm: (n, d).
    keep    rows that must be alive afterwards, aggregate included; None in native mode.
    image   (n,) which image a row belongs to; unit (n,) its raster index there, -1 for an aggregate or a CLS token.
    kind    (n,) VISUAL | AGGREGATE | PREFIX; size (n,) how many original tokens a row stands for.
    seed    an integer that depends on run seed, sample and site alone.
    prepared what `prepare` returned for this model.
    """

    site: Site
    hidden: Tensor
    keep: int | None
    image: Tensor
    unit: Tensor
    kind: Tensor
    size: Tensor
    shape: Shape
    seed: int = 0
    rope: str = "1d"
    signals: Mapping[Signal, Tensor] = field(default_factory=dict)
    prepared: Any = None

    @property
    def n(self) -> int:
        return self.hidden.shape[0]

    @property
    def images(self) -> int:
        return len(self.shape.grids)

    def signal(self, wanted: Signal) -> Tensor:
        """The tensor of a declared signal. Raises MissingSignal."""
        if wanted not in self.signals:
            raise MissingSignal(f"{wanted} was not declared in needs(), or this model family cannot give it")
        return self.signals[wanted]

    def generator(self) -> torch.Generator:
        """A CPU generator seeded for this site of this sample; draw on it and move the result."""
        return torch.Generator().manual_seed(self.seed)


_OF_THE_CLASS = {"name", "title", "paper", "licence", "hooks", "presets", "synchronises", "cost"}


class Pruner:
    """Base of every method. Subclass as a frozen dataclass; the fields are the settings.

    A setting's type says what it may be: `Literal["last", "all"]`, `Annotated[float, Range(0, 1)]`. It is checked here.
    Class attributes: `name`, `title`, `paper`, `licence` (of the authors' code), `hooks`, `presets` (name ->
    settings), `granularity` ("unit" | "patch": what a row is at in-vit sites), `cls_row` (whether the interface's view
    has the ViT's CLS tokens as rows, see `Shape.shows_cls`), `positions` ("original" keeps the
    survivors' positions; "renumber" closes the gaps on models with 1-d RoPE, M-RoPE always keeps its ids unless a
    Selection says otherwise), `stochastic`, `synchronises` (why a hook method waits for the device; "" if none does),
    `cost` (of its own work for one prompt, in big-O and words).
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    hooks: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    granularity: ClassVar[str] = "unit"
    cls_row: ClassVar[bool] = False
    positions: ClassVar[str] = "original"
    stochastic: ClassVar[bool] = False
    synchronises: ClassVar[str] = ""
    cost: ClassVar[str] = ""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name, kind in inspect.get_annotations(cls).items():
            if name in _OF_THE_CLASS and "ClassVar" not in str(kind):
                raise PruningError(
                    f"{name} of {cls.__name__} belongs to the class and is no setting, though it has a type; write "
                    f"{name}: ClassVar, or leave the type out"
                )

    def __post_init__(self) -> None:
        check(getattr(self, "name", type(self).__name__), self)
        self.check_settings()

    def check_settings(self) -> None:
        """Raise PruningError for settings that do not go together; each alone is as its type wants it."""

    def settings(self) -> dict[str, Any]:
        """The settings of this instance, by name: they go into the run's identity."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    @property
    def wants_adapter(self) -> bool:
        """Whether `prepare` needs tensors that were trained for this model (`ModelInfo.adapter`)."""
        return False

    @property
    def clip(self) -> str:
        """Folder of the CLIP model that signals of the tower "clip" come from, "" for none."""
        return ""

    def site(self, shape: Shape) -> Site:
        """The one site of a single-site method. In-LLM methods override it to map their layer."""
        return Site(self.hooks[0])

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        """The integers that meet `budget`; the default serves methods with one site.

        Raises BudgetInfeasible. The harness never calls it for a budget of all tokens: that bypasses the method.
        """
        return one_site_plan(self.name, self.site(shape), budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        """The signals that the hook methods will ask their views for."""
        return ()

    def prepare(self, model: ModelInfo) -> Any:
        """Work done once per model (an adapter is built or loaded); the result comes back as `view.prepared`."""
        return None

    def notes(self, model: ModelInfo) -> tuple[str, ...]:
        """What a user should know of this method on this model, a sentence each, told when a run begins."""
        return ()

    def before_tokenization(self, view: View) -> Selection | tuple[Resize, ...] | None:
        """Which units of pixels are cut into patches; or, one `Resize` an image, how large all images become."""
        return None

    def in_vit(self, view: View) -> Selection | None:
        return None

    def at_interface(self, view: View) -> Selection | None:
        return None

    def in_llm(self, view: View) -> Selection | None:
        return None

    def extra_vit_tokens(self, question: Tensor, patches: Tensor, prepared: Any) -> Tensor | None:
        """Extra tokens put in front of each image in the ViT: (e, d_vit), or None.

        question: (q, d) embeddings of the user's text; patches: (p, d_vit) embedded patches of one image.
        They are removed before the projector. Only called when the plan has an in-vit site.
        """
        return None

    def extra_vit_token_count(self) -> int:
        """How many tokens `extra_vit_tokens` returns, for FLOPs."""
        return 0

    def extra_vit_flops(self, question_tokens: int, model: ModelInfo) -> int:
        """FLOPs of one call of `extra_vit_tokens`, counted as in `selection_flops`."""
        return 0

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        """FLOPs of the method's own maths at one site: n rows of width d in, k kept without the new aggregates.

        Rows are patches where the view's are.

        Products of matrices and convolutions count, 2 a multiply-accumulate; sorting and elementwise maths do not.
        The harness adds what it computes itself: the signals asked for and the sums of aggregates.
        """
        return 0

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...] | None:
        """(units, aggregates) of each image alive after a site, together `plan.keeps[site]`: FLOPs before a run.

        None: units alone, shared by size. An estimate where the picture decides which image keeps more.
        """
        return None


def map_depths(indices: tuple[int, ...], depth: int, layers: int) -> tuple[int, ...]:
    """An authors' layer setting on another depth: max(1, round(index / depth * layers)), strictly increasing.

    Raises PruningError when the model has too few layers for that many distinct sites.
    """
    mapped: list[int] = []
    for index in indices:
        layer = max(1, round(index / depth * layers))
        mapped.append(max(layer, mapped[-1] + 1) if mapped else layer)
    if mapped and mapped[-1] >= layers:
        raise PruningError(f"layers {indices} of {depth} do not fit a model of {layers} layers (mapped to {mapped})")
    return tuple(mapped)


def rows_of_unit(site: Site, pruner: Pruner, shape: Shape) -> int:
    """How many rows of a view at `site` make a unit: 1, or unit_patches in the ViT under patch granularity."""
    return shape.unit_patches if site.hook == IN_VIT and pruner.granularity == "patch" else 1


def shows_cls_rows(pruner: Pruner, plan: Plan, shape: Shape) -> bool:
    """Whether the interface's view of a run has the CLS tokens as rows."""
    return Site(INTERFACE) in plan.keeps and shape.shows_cls and pruner.cls_row


def one_site_plan(name: str, site: Site, budget: Budget, shape: Shape) -> Plan:
    """The plan of a method that acts once: n tokens enter the layers before the site, k those from it on.

    Raises BudgetInfeasible when the layers before the site alone exceed the budget.
    """
    layers, n = shape.llm_layers, shape.n
    before = site.layer if site.hook == IN_LLM else 0
    if budget.kind == "native":
        return Plan({site: None})
    if budget.kind == "interface_kept" and before:
        raise BudgetInfeasible(
            f"{name} prunes inside the LLM, so all {n} tokens enter layer 0; use --budget layer_average:...", n
        )
    k = budget.tokens if not before else round((layers * budget.tokens - before * n) / (layers - before))
    if k < 0 or (k == 0 and not before):
        floor = max(before * n / layers, 1)
        raise BudgetInfeasible(
            f"{name} needs >= {floor:g} of {n} tokens on average here, got {budget.tokens}; raise --budget", floor
        )
    return Plan({site: k}, (n,) * before + (k,) * (layers - before))
