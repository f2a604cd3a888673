"""Losses of the reference model: next token at answers, dense labels per patch and visual token, row and column."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.reference_training.batches import END, IGNORED, NO_SHAPE, TrainingBatch
from harness.reference_training.labels import PATCH_LABELS, UNIT_LABELS
from harness.reference_training.packed import WORDS
from harness.reference_training.words import FAMILIES

PLACES = 8


class AuxiliaryHeads(nn.Module):
    """Linear readouts that exist in training only: labels from ViT states and from visual tokens, row and column of
    tokens."""

    def __init__(self, patch_width: int = 160, unit_width: int = 128) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(patch_width)
        self.patch = nn.ModuleDict({name: nn.Linear(patch_width, size) for name, size in PATCH_LABELS.items()})
        self.unit = nn.ModuleDict({name: nn.Linear(unit_width, size) for name, size in UNIT_LABELS.items()})
        self.place = nn.ModuleDict({name: nn.Linear(unit_width, PLACES) for name in ("row", "column")})
        self.word_norm, self.word = nn.LayerNorm(unit_width), nn.Linear(unit_width, NO_SHAPE + 1)

    def word_loss(self, states: Tensor, batch: TrainingBatch) -> Tensor:
        """Whether the token that starts an answer has gathered the shape that is asked about.

        states: of question tokens, (B, Q * LENGTH, 128)."""
        places = (batch.targets != IGNORED).int().argmax(-1)  # (B, Q): the first token of an answer is predicted there
        split = states.unflatten(1, batch.targets.shape[1:])
        starts = split.gather(2, places[..., None, None].expand(-1, -1, 1, split.shape[-1])).squeeze(2)  # (B, Q, 128)
        logits = self.word(self.word_norm(starts)).float()
        return F.cross_entropy(logits[batch.families >= 0], batch.words[batch.families >= 0])

    def forward(self, states: Tensor, tokens: Tensor, batch: TrainingBatch) -> tuple[Tensor, dict[str, float]]:
        """states (B, N, 160), tokens (B, n, 128) -> weighted sum of losses, and accuracies on the labels other than
        'nothing'."""
        total, accuracy = states.new_zeros(()), {}
        normed = self.norm(states)
        for heads, features, labels, sizes in (
            (self.patch, normed, batch.patch, PATCH_LABELS),
            (self.unit, tokens, batch.unit, UNIT_LABELS),
        ):
            for name, head in heads.items():
                logits, label = head(features).float().flatten(0, 1), labels[name].flatten()
                nothing = sizes[name] - 1
                weight = torch.ones(sizes[name])
                weight[nothing] = 0.3
                total = total + F.cross_entropy(logits, label, weight=weight.to(logits.device))
                some = label != nothing
                level = "patch" if heads is self.patch else "unit"
                accuracy[f"{level}_{name}"] = (
                    (logits.argmax(-1) == label)[some].float().mean().item() if some.any() else 0.0
                )
        side = round(tokens.shape[1] ** 0.5)
        place = torch.arange(side, device=tokens.device) * PLACES // side
        for name, grid in (("row", place[:, None].expand(side, side)), ("column", place[None].expand(side, side))):
            logits = self.place[name](tokens).float()
            total = total + 0.4 * F.cross_entropy(logits.flatten(0, 1), grid.reshape(-1).repeat(len(tokens)))
        return total, accuracy


def answer_loss(logits: Tensor, batch: TrainingBatch) -> Tensor:
    """Mean cross-entropy over the tokens of answers. logits (B, Q * LENGTH, vocabulary)."""
    return F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)


def gaze_loss(watched: dict[int, Tensor], batch: TrainingBatch) -> Tensor:
    """How far the watched heads look past what is asked about: mean of -log of their share of attention on it.

    watched: layer -> log attention over image tokens (B, heads, Q * LENGTH, n). Counted where a token of an answer is
    predicted.
    """
    speaking = (batch.targets != IGNORED) & (batch.targets != END)  # (B, Q, LENGTH)
    rows = speaking & batch.aims.any(-1, keepdim=True)
    missed = (~batch.aims)[:, None, :, None]  # (B, 1, Q, 1, n)
    losses = []
    for gaze in (watched[layer] for layer in watched if layer != WORDS):
        split = gaze.unflatten(2, rows.shape[1:])  # (B, heads, Q, LENGTH, n)
        share = split.masked_fill(missed, -1e4).logsumexp(-1)  # (B, heads, Q, LENGTH)
        losses.append(-share.transpose(1, 2).transpose(2, 3)[rows].mean())
    return torch.stack(losses).mean()


def exact_matches(logits: Tensor, batch: TrainingBatch) -> Tensor:
    """Right answers and questions by family, float (families, 2). Every token of the answer must be the likeliest,
    which is what greedy decoding produces."""
    targets = batch.targets
    right = (logits.argmax(-1).view(targets.shape) == targets) | (targets == IGNORED)
    counts = torch.zeros(len(FAMILIES), 2)
    for family in range(len(FAMILIES)):
        asked = batch.families == family
        counts[family] = torch.stack([(right.all(-1) & asked).sum(), asked.sum()]).float().cpu()
    return counts
