"""QuietPrune: the question looks at the image inside the ViT, and what it does not look at is dropped there.

Paper: Gao, Zhao, Fang, Zhu, Ma, "QuietPrune", CVPR 2026, pp. 3553-3562. No code was published and the PDF was not
available to us (abstract, tables and two reading notes were): a reimplementation without reference code.

The projector (norm, linear, GELU, linear; LLaVA's has no norm) is run backwards: question embeddings pass through its
inverted layers and become one token in visual space, [Q-CLS], in front of the patches. After 1/4, 1/2 and 3/4 of the
blocks, the units (2x2 groups where patches are merged) that [Q-CLS] attends to least are dropped, and gathered into
one aggregate token, weighted by that attention, which goes on to the LLM. Trained (self-distillation) or only
initialised (preset "init"), the rest is frozen.

Ours (the paper is silent, or we could not read it)
* Inverse of a linear layer: ridge with alpha = 0.3 of the mean squared singular value, then scaled so that its
  product with the layer has the trace of an identity. alpha = 0, gain = False is the paper's pseudo-inverse, which
  for square, ill-conditioned layers returns noise.
* [Q-CLS] is the mean over question tokens and over the four patch vectors that the inverse returns, scaled to the
  root mean square of the image's embedded patches.
* A cut uses the attention of the block before it, softmax over everything that block sees, mean over heads.
* Geometric schedule: the same rate at each of the three cuts. The budget counts the aggregate.
* One running aggregate: the weighted mean of what a cut drops and of the aggregate so far (aggregate_norm="none" is
  the plain weighted sum that the paper prints, which all but erases the token, for the weights sum to far below 1).
* Several images: each has its own [Q-CLS], aggregate and share of the budget (`ops.share`), at least two tokens
  (a unit and the aggregate) each.

Departures: a cut that would gather a single unit of an image gathers none (the aggregate would only copy it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import gelu

from methods.base import (
    IN_VIT,
    PREFIX,
    VISUAL,
    Budget,
    BudgetInfeasible,
    Least,
    MissingSignal,
    ModelInfo,
    Plan,
    Pruner,
    PruningError,
    Selection,
    Shape,
    Signal,
    Site,
    View,
    rows_of_unit,
)
from methods.ops import share, top_k

# Names of (norm or "", first linear, last linear) of a projector: Qwen3-VL, Qwen2.5-VL, InternVL, LLaVA.
_LAYERS = (
    ("norm", "linear_fc1", "linear_fc2"),
    ("ln_q", "mlp.0", "mlp.2"),
    ("layer_norm", "linear_1", "linear_2"),
    ("", "linear_1", "linear_2"),
)


@dataclass(frozen=True)
class QuietPrune(Pruner):
    """adapter: "trained" | "untrained" (as initialised). init: "inverse" (of the projector; alpha, gain) | "random".

    act: what stands for the inverse of GELU, "gelu" (the paper's) | "identity" | "gelu_inverse". slot_pool: "mean" of
    the four patch vectors | "first". qcls_scale: "match" | "none". guidance: "query" | "saliency" (no [Q-CLS]; mean
    attention that a patch receives). schedule: "geometric" | "linear" | "front" (all at the first cut) | "late" (all
    at the last). aggregate_norm: "sum" | "none".
    granularity: "unit" | "patch" (single patches stay, packed into units in raster order; without an aggregate).
    """

    name = "quietprune"
    title = "QuietPrune"
    paper = "CVPR 2026, pp. 3553-3562"
    licence = "no code published"
    hooks = (IN_VIT,)
    cost = "O(q d^2) for the query; one more ViT token, one of its attention rows a cut"
    presets: ClassVar = {
        "init": {"adapter": "untrained"},
        "random-init": {"adapter": "untrained", "init": "random"},
        "literal": {"adapter": "untrained", "alpha": 0.0, "gain": False, "aggregate_norm": "none"},
        "saliency": {"guidance": "saliency"},
        "no-aggregation": {"aggregate": False},
        "unstructured": {"granularity": "patch", "aggregate": False},
    }

    adapter: Literal["trained", "untrained"] = "trained"
    init: Literal["inverse", "random"] = "inverse"
    init_seed: int = 0
    alpha: Annotated[float, Least(0)] = 0.3
    gain: bool = True
    act: Literal["gelu", "identity", "gelu_inverse"] = "gelu"
    slot_pool: Literal["mean", "first"] = "mean"
    qcls_scale: Literal["match", "none"] = "match"
    guidance: Literal["query", "saliency"] = "query"
    schedule: Literal["geometric", "linear", "front", "late"] = "geometric"
    aggregate: bool = True
    aggregate_norm: Literal["sum", "none"] = "sum"
    granularity: Literal["unit", "patch"] = "unit"  # type: ignore[misc]

    def check_settings(self) -> None:
        if self.granularity == "patch" and self.aggregate:
            raise PruningError("an aggregate is a unit; with granularity patch set aggregate to false")

    @property
    def wants_adapter(self) -> bool:
        return self.adapter == "trained" and self.guidance == "query"

    @property
    def least(self) -> int:
        """Tokens that an image needs: a unit, and the aggregate of the rest."""
        return 2 if self.aggregate else 1

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            raise BudgetInfeasible("quietprune has no budget of its own; ask for one, such as --budget 50%", self.least)
        floor = sum(min(self.least, n) for n in shape.images)
        if budget.tokens < floor:
            raise BudgetInfeasible(
                f"quietprune needs >= {floor} of {shape.n} tokens here, got {budget.tokens}; raise --budget", floor
            )
        final = share(budget.tokens, shape.images, self.least)
        per_image = [self._alive(n, k) for n, k in zip(shape.images, final, strict=True)]
        totals = [sum(stage) for stage in zip(*per_image, strict=True)]
        keeps = {site: total for site, total in zip(self._sites(shape), totals, strict=True)}
        return Plan(keeps, (budget.tokens,) * shape.llm_layers)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries = "extra" if self.guidance == "query" else "received"
        return tuple(Signal("rows", tower="vit", layer=site.layer, queries=queries) for site in self._sites(shape))

    def prepare(self, model: ModelInfo) -> QueryAdapter | None:
        """The adapter of this model. Raises PruningError if a trained one is asked for and there is none."""
        if self.guidance == "saliency":
            return None
        if self.adapter == "untrained":
            tensors = self._inverted(model) if self.init == "inverse" else self._random(model)
        elif model.adapter is not None:
            tensors = model.adapter
        else:
            raise PruningError(
                "no adapter was trained for this model; train one with `harness train-adapter`, "
                "or use the untrained one: --method quietprune:init"
            )
        projector = _projector(model)
        adapter = QueryAdapter(shapes_of(projector), tensors, model.unit_patches, self.act, self.slot_pool)
        return adapter.to(projector.last[0].device)

    def notes(self, model: ModelInfo) -> tuple[str, ...]:
        """How badly conditioned the layers are that were inverted."""
        if self.guidance == "saliency" or self.adapter == "trained" or self.init != "inverse":
            return ()
        projector = _projector(model)
        first, last = (condition_number(layer[0]) for layer in (projector.first, projector.last))
        return (
            f"quietprune inverts a projector with condition numbers {first:.3g} (first layer) and {last:.3g} (last), "
            f"alpha {self.alpha:g}",
        )

    def extra_vit_token_count(self) -> int:
        return 1 if self.guidance == "query" else 0

    def extra_vit_flops(self, question_tokens: int, model: ModelInfo) -> int:
        if self.guidance == "saliency":
            return 0
        shapes = shapes_of(_projector(model))
        return sum(2 * question_tokens * prod(shapes[f"inverse_{number}.weight"]) for number in (1, 2))

    def extra_vit_tokens(self, question: Tensor, patches: Tensor, prepared: QueryAdapter | None) -> Tensor | None:
        """[Q-CLS], (1, d_vit) in the dtype of the patches."""
        if prepared is None:
            return None
        if not len(question):
            raise PruningError("quietprune was asked without a question; give the prompt some text")
        token = prepared(question)  # (1, d_vit)
        if self.qcls_scale == "match":
            token = token * (_rms(patches) / _rms(token))
        return token.to(patches.dtype)

    def in_vit(self, view: View) -> Selection:
        attention = view.signal(self.needs(view.shape)[self._sites(view.shape).index(view.site)])  # (n, g)
        score = attention.mean(dim=1)  # (n,)
        each, kept = rows_of_unit(view.site, self, view.shape), []
        for index, (units, _) in enumerate(self._split(view.keep // each, view.shape)):
            candidates = (view.image == index) & (view.kind == VISUAL)
            kept.append(top_k(score.masked_fill(~candidates, -torch.inf), each * units))
        keep = torch.cat(kept)
        return Selection(keep, aggregate=self._gathered(attention, keep, view) if self.aggregate else None)

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...]:
        return self._split(plan.keeps[site], shape)

    def _split(self, alive: int, shape: Shape) -> tuple[tuple[int, int], ...]:
        """(units, aggregates) of each image: one that lost units holds an aggregate of them."""
        shares = zip(share(alive, shape.images, self.least), shape.images, strict=True)
        return tuple((tokens - 1, 1) if self.aggregate and tokens < n else (tokens, 0) for tokens, n in shares)

    def _gathered(self, attention: Tensor, keep: Tensor, view: View) -> Tensor:
        """Weights (n, g) of each image's new aggregate: all that is not kept, the aggregate so far included."""
        gone = (view.kind != PREFIX).index_fill(0, keep, False)
        weight = attention * gone[:, None]
        if self.aggregate_norm == "none":
            return weight
        member = view.image[:, None] == torch.arange(view.images, device=keep.device)  # (n, images)
        mass = (weight.sum(dim=1, keepdim=True) * member).sum(dim=0)  # (images,)
        return weight / mass.clamp_min(torch.finfo(weight.dtype).tiny)[view.image][:, None]

    def _sites(self, shape: Shape) -> tuple[Site, ...]:
        return tuple(Site(IN_VIT, cut - 1) for cut in cuts(shape.vit_layers))

    def _alive(self, n: int, k: int) -> tuple[int, ...]:
        """Tokens of one image of n units alive after each cut, the aggregate included, k in the end."""
        if k >= n:
            return (n, n, n)
        spare = 1 if self.aggregate else 0
        return tuple(min(n, units + spare) for units in stage_counts(n, k - spare, self.schedule))

    def _inverted(self, model: ModelInfo) -> dict[str, Tensor]:
        projector = _projector(model)
        tensors = {}
        for number, layer in ((2, projector.last), (1, projector.first)):
            weight, bias = (tensor.double() for tensor in layer)
            inverted = inverse(weight, self.alpha, self.gain)
            tensors[f"inverse_{number}.weight"], tensors[f"inverse_{number}.bias"] = inverted, -inverted @ bias
        if projector.norm is not None:
            gamma, beta = projector.norm[0].double(), projector.norm[1]
            gamma = torch.where(gamma < 0, -1, 1) * gamma.abs().clamp_min(1e-3)
            tensors["inverse_norm.weight"] = 1 / gamma
            if beta is not None:
                tensors["inverse_norm.bias"] = -beta.double() / gamma
        return tensors

    def _random(self, model: ModelInfo) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.init_seed)
        tensors = {}
        for name, shape in shapes_of(_projector(model)).items():
            if len(shape) == 2:
                tensors[name] = torch.randn(shape, generator=generator) * shape[1] ** -0.5
            else:
                tensors[name] = torch.ones(shape) if name == "inverse_norm.weight" else torch.zeros(shape)
        return tensors


@dataclass(frozen=True)
class Projector:
    """y = last(gelu(first(norm(x)))): (weight, bias) of each; the norm runs over as many channels as it has.

    norm: None where there is none; its bias is None in an RMS norm.
    """

    norm: tuple[Tensor, Tensor | None] | None
    first: tuple[Tensor, Tensor]
    last: tuple[Tensor, Tensor]


class QueryAdapter(torch.nn.Module):
    """Question embeddings (q, D) -> one token (1, d) in the space of normalised patches. float32, differentiable.

    state_dict: inverse_2.weight (m, D), inverse_2.bias (m,), inverse_1.weight (g d, m), inverse_1.bias (g d,),
    inverse_norm.weight and inverse_norm.bias (d,) or (g d,): each undoes the projector's layer of that name. An RMS
    norm has no bias, a projector without a norm neither.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], slots: int, act: str, slot_pool: str
    ):
        super().__init__()
        with torch.device("meta"):  # no memory, and no draw from the global generator
            self.inverse_2 = torch.nn.Linear(*reversed(shapes["inverse_2.weight"]))
            self.inverse_1 = torch.nn.Linear(*reversed(shapes["inverse_1.weight"]))
            self.inverse_norm = _norm(shapes)
        self.slots, self.act, self.slot_pool = slots, act, slot_pool
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != dict(shapes):
            raise PruningError(f"this adapter was made for another projector: expected {dict(shapes)}, got {found}")
        copies = {name: tensor.detach().clone().float() for name, tensor in tensors.items()}
        self.load_state_dict(copies, assign=True)

    def forward(self, question: Tensor) -> Tensor:
        hidden = self.inverse_2(question.to(self.inverse_2.weight))  # (q, m)
        hidden = {"gelu": gelu, "identity": lambda x: x, "gelu_inverse": gelu_inverse}[self.act](hidden)
        hidden = self.inverse_1(hidden)  # (q, g d)
        if self.inverse_norm is not None:
            hidden = self.inverse_norm(hidden.unflatten(1, (-1, *self.inverse_norm.normalized_shape))).flatten(1)
        slots = hidden.unflatten(1, (self.slots, -1))  # (q, g, d)
        return (slots.mean(dim=1) if self.slot_pool == "mean" else slots[:, 0]).mean(dim=0, keepdim=True)


def shapes_of(projector: Projector) -> dict[str, tuple[int, ...]]:
    """The shapes of an adapter's tensors, by name."""
    (out, hidden), (_, wide) = projector.last[0].shape, projector.first[0].shape
    shapes = {
        "inverse_2.weight": (hidden, out),
        "inverse_2.bias": (hidden,),
        "inverse_1.weight": (wide, hidden),
        "inverse_1.bias": (wide,),
    }
    if projector.norm is not None:
        parts = zip(("weight", "bias"), projector.norm, strict=True)
        shapes |= {f"inverse_norm.{name}": tuple(part.shape) for name, part in parts if part is not None}
    return shapes


def _norm(shapes: Mapping[str, tuple[int, ...]]) -> torch.nn.Module | None:
    """The norm of an adapter of these shapes, of the projector's kind."""
    width = shapes.get("inverse_norm.weight")
    if width is None:
        return None
    kind = torch.nn.LayerNorm if "inverse_norm.bias" in shapes else torch.nn.RMSNorm
    return kind(width, eps=1e-6)


def _projector(model: ModelInfo) -> Projector:
    """The layers of a model's projector, told by their names.

    Raises MissingSignal for one that is not two linear layers, with or without a norm in front.
    """
    found = model.projector
    for norm, first, last in _LAYERS:
        if f"{first}.weight" in found and f"{last}.weight" in found and (not norm or f"{norm}.weight" in found):
            weight = found.get(f"{norm}.weight")
            scale = None if weight is None else (weight, found.get(f"{norm}.bias"))
            return Projector(scale, _linear(found, first), _linear(found, last))
    raise MissingSignal(
        f"quietprune inverts projectors of two linear layers; that of {model.family!r} has {', '.join(sorted(found))}"
    )


def _linear(found: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer; zeros for a layer without."""
    weight = found[f"{name}.weight"]
    bias = found.get(f"{name}.bias")
    return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias


def condition_number(weight: Tensor) -> float:
    """Largest singular value over the smallest, inf for a singular matrix; from the smaller Gram matrix, float64."""
    m, n = weight.shape
    weight = weight.double()
    squares = torch.linalg.eigvalsh(weight.T @ weight if n <= m else weight @ weight.T)  # ascending
    least = float(squares[0])
    return float(squares[-1] / least) ** 0.5 if least > 0 else float("inf")


def inverse(weight: Tensor, alpha: float, gain: bool) -> Tensor:
    """The ridge inverse of y = W x: (W'W + lambda I)^-1 W', lambda = alpha x mean squared singular value.

    weight (m, n) -> (n, m), float64 for accuracy. gain: scaled so that trace(A W) = min(m, n). alpha 0: pseudo-inverse.
    """
    m, n = weight.shape
    if alpha == 0:
        inverted = torch.linalg.pinv(weight)
    else:
        small = weight.T @ weight if n <= m else weight @ weight.T
        ridge = alpha * weight.square().sum() / min(m, n)
        root = torch.linalg.cholesky(small + ridge * torch.eye(min(m, n), dtype=weight.dtype, device=weight.device))
        inverted = torch.cholesky_solve(weight.T if n <= m else weight, root)
        inverted = inverted if n <= m else inverted.T
    return inverted * (min(m, n) / (inverted * weight.T).sum()) if gain else inverted


def gelu_inverse(y: Tensor) -> Tensor:
    """x >= -0.75 with gelu(x) = y, by bisection; y below the least value of GELU (-0.17) gives the place of that."""
    low, high = torch.full_like(y, -0.7518), y.clamp_min(0) + 1
    for _ in range(40):
        middle = (low + high) / 2
        below = gelu(middle) < y
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def cuts(layers: int) -> tuple[int, ...]:
    """Blocks run before each cut: layers x 1/4, 1/2, 3/4, halves rounded up. Raises PruningError below 4 blocks."""
    if layers < 4:
        raise PruningError(f"quietprune cuts a ViT in four; this one has {layers} blocks")
    return tuple((quarter * layers + 2) // 4 for quarter in (1, 2, 3))


def stage_counts(n: int, kept: int, schedule: str) -> tuple[int, int, int]:
    """Units of n alive after each of the three cuts, `kept` after the last; never rising. 1 <= kept <= n."""
    if schedule == "front":
        return kept, kept, kept
    if schedule == "late":
        return n, n, kept
    counts, before = [], n
    for stage in (1, 2):
        geometric = schedule == "geometric"
        target = n * (kept / n) ** (stage / 3) if geometric else n - (n - kept) * stage / 3
        before = max(kept, min(before, round(target)))
        counts.append(before)
    return counts[0], counts[1], kept


def _rms(x: Tensor) -> Tensor:
    return x.float().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
