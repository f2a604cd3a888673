"""Self-distillation of a method's adapter: the unpruned model teaches the pruned one, only the adapter learns.

Loss on the answer tokens: cross-entropy + KL(teacher || student), both with weight 1, temperature 1, mean over tokens;
a third term (harness/adapter_training/guidance.py) is ours, with weight 0 unless asked for.
The hard choice of units has no gradient; the adapter learns through the joint attention of the ViT and through the
aggregate's weights. Source: QuietPrune's training, as far as it is known (methods/quietprune.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.optim import AdamW

from harness.adapter_training.examples import Example, Stream
from harness.adapter_training.guidance import guidance_loss, refuse_tiles, watching_answers, watching_cuts
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.loading import OpenModel
from harness.models.trace import Trace
from harness.records.errors import UsageError
from methods.base import Budget, Plan, Pruner


@dataclass(frozen=True)
class Recipe:
    """steps of `batch` examples; keep_ratio: share of tokens that survives (0.75 ** 3: a quarter goes at each cut).

    guidance_weight: of the term that is ours; 0 is the published loss. guidance_layers: of the LLM, whose attention it
    wants: "all" | "middle" (the middle half).
    """

    steps: int = 313
    batch: int = 32
    keep_ratio: float = 0.42
    learning_rate: float = 1e-4
    warmup_ratio: float = 0.03
    clip_norm: float = 1.0
    guidance_weight: float = 0.0
    guidance_layers: str = "all"
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """What one step did: mean losses per answer token. guidance: nan where images are cut into tiles."""

    step: int
    cross_entropy: float
    kl: float
    guidance: float
    gradient_norm: float


def train(
    model: OpenModel,
    pruner: Pruner,
    examples: Stream,
    recipe: Recipe,
    out: Path,
    report: Callable[[Step], None] = lambda step: None,
) -> Path:
    """Train the pruner's adapter from its initialisation; returns the safetensors file `out`.

    examples(seed) starts a stream. A checkpoint beside `out` is written at every 20th step; a run that finds one of
    the same recipe continues it. The base model's weights are not touched. Raises UsageError if there is no adapter,
    and for a guidance weight where images are cut into tiles.
    """
    student = Engine(model.family, pruner)
    adapter = student.prepared
    if not isinstance(adapter, nn.Module):
        raise UsageError(f"{pruner.name} has no adapter to train; use a preset that starts from one (quietprune:init)")
    adapter.requires_grad_(True)
    optimizer = AdamW(adapter.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    checkpoint = out.with_suffix(".checkpoint.pt")
    first = _resume(checkpoint, recipe, adapter, optimizer)
    teacher = Engine(model.family, None)
    with frozen(model.family.model):
        for number in range(first, recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * schedule(number, recipe)
            stream = examples(recipe.seed * 1_000_003 + number)  # a step's data follow from its number alone
            losses = [_backward(teacher, student, model, next(stream), recipe) for _ in range(recipe.batch)]
            norm = nn.utils.clip_grad_norm_(adapter.parameters(), recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            means = (sum(part) / recipe.batch for part in zip(*losses, strict=True))
            report(Step(number + 1, *means, float(norm)))
            if (number + 1) % 20 == 0:
                _save_checkpoint(checkpoint, number + 1, recipe, adapter, optimizer)
    save_adapter(out, adapter, model.family.info.projector_hash, pruner.name, recipe)
    checkpoint.unlink(missing_ok=True)
    return out


def schedule(number: int, recipe: Recipe) -> float:
    """The factor on the learning rate: linear warm-up, then cosine to 0."""
    warmup = max(1, round(recipe.warmup_ratio * recipe.steps))
    if number < warmup:
        return (number + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (number - warmup) / max(1, recipe.steps - warmup)))


def distillation_losses(student: Tensor, teacher: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy, KL(teacher || student)), means over answer tokens. Logits (A, V), answer ids (A,)."""
    log_student, log_teacher = log_softmax(student.float(), -1), log_softmax(teacher.float(), -1)
    kl = kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    return cross_entropy(student.float(), answer), kl


def plan_for(engine: Engine, inputs: Inputs, keep_ratio: float) -> Plan:
    """The engine's plan at a share of the prompt's visual tokens."""
    return engine.plan(Budget("layer_average", max(1, round(keep_ratio * inputs.shape.n))), inputs.shape)


def answer_logits(engine: Engine, inputs: Inputs, tokens: int, plan: Plan) -> tuple[Tensor, Trace]:
    """Logits (tokens, V) that predict the last `tokens` tokens of the prompt, gradients kept, and what ran."""
    with engine.encoded(inputs, plan, 0, Untimed()) as encoded:
        out = engine.family.model(**encoded.arguments, use_cache=False, logits_to_keep=tokens + 1)
    return out.logits[0, :-1], encoded.trace


def save_adapter(out: Path, adapter: nn.Module, projector_hash: str, method: str, recipe: Recipe) -> None:
    """The adapter as safetensors in float16, bound to its base model by the hash of projector and embedding.

    Raises UsageError where a weight leaves float16's range.
    """
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in adapter.state_dict().items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UsageError(f"{', '.join(broken)} left float16's range; train with a lower learning rate")
    metadata = {"base_projector_hash": projector_hash, "method": method, "recipe": json.dumps(asdict(recipe))}
    save_file(tensors, out, metadata)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the block no parameter of the model asks for a gradient."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


def _backward(
    teacher: Engine, student: Engine, model: OpenModel, example: Example, recipe: Recipe
) -> tuple[float, float, float]:
    """Add one example's gradient to the adapter; returns (cross-entropy, KL, guidance)."""
    inputs, answer = model.prepare_answered(example.images, example.question, example.answer)
    tokens = answer.shape[0]
    if recipe.guidance_weight:
        refuse_tiles(inputs.shape)
    with torch.no_grad(), watching_answers(teacher, inputs, tokens, recipe.guidance_layers) as relevance:
        target, _ = answer_logits(teacher, inputs, tokens, plan_for(teacher, inputs, 1.0))
    plan = plan_for(student, inputs, recipe.keep_ratio)
    with watching_cuts(student, plan) as captures:
        ours, trace = answer_logits(student, inputs, tokens, plan)
    ce, kl = distillation_losses(ours, target, answer)
    loss, guidance = ce + kl, math.nan  # no such term where images are cut into tiles
    if not inputs.shape.tiles:
        term = guidance_loss(captures, plan, trace, relevance)
        loss, guidance = loss + recipe.guidance_weight * term, term.item()
    (loss / recipe.batch).backward()
    return ce.item(), kl.item(), guidance


def _save_checkpoint(path: Path, step: int, recipe: Recipe, adapter: nn.Module, optimizer: AdamW) -> None:
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "step": step,
            "recipe": asdict(recipe),
            "adapter": adapter.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        partial,
    )
    partial.replace(path)


def _resume(path: Path, recipe: Recipe, adapter: nn.Module, optimizer: AdamW) -> int:
    """The step to continue at; 0 without a checkpoint. Raises UsageError for one of another recipe."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        raise UsageError(f"{path} belongs to another recipe ({state['recipe']}); remove it or repeat that recipe")
    adapter.load_state_dict(state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
