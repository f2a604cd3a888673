"""Muon for the hidden matrices, AdamW for the rest, behind one step.

Muon replaces a matrix's momentum by the nearest orthogonal matrix (five Newton-Schulz steps), so that all directions
of the matrix learn at the same pace. Source: Jordan et al., Muon, 2024 (algorithm), Keller Jordan's coefficients
3.4445, -4.7750, 2.0315.
"""

import torch
import torch.distributed as distributed
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """(count, rows, columns) -> the same shape, singular values pushed near 1. Computed in bfloat16."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for 2-D parameters; decoupled weight decay. Matrices of one shape go as a batch.

    With several workers (`workers` > 1, equal gradients everywhere) each orthogonalises its part and they add the
    parts up.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        workers: int = 1,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.workers = workers

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            directions = [self._direction(parameter, group["momentum"]) for parameter in moved]
            for parameter, update in zip(moved, self._updates(directions), strict=True):
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])

    def _updates(self, directions: list[Tensor]) -> list[Tensor]:
        """The orthogonalised directions, scaled so that tall matrices move as fast as wide ones."""
        rank = distributed.get_rank() if self.workers > 1 else 0
        shapes: dict[torch.Size, list[int]] = {}
        for index, direction in enumerate(directions):
            shapes.setdefault(direction.shape, []).append(index)
        updates = [torch.zeros_like(direction) for direction in directions]
        for (rows, columns), indices in shapes.items():
            mine = indices[rank :: self.workers]
            if not mine:
                continue
            scale = max(1.0, rows / columns) ** 0.5
            for index, update in zip(mine, orthogonalize(torch.stack([directions[i] for i in mine])), strict=True):
                updates[index] = update * scale
        if self.workers == 1:
            return updates
        flat = torch.cat([update.flatten() for update in updates])
        distributed.all_reduce(flat)
        parts = flat.split([direction.numel() for direction in directions])
        return [part.view_as(direction) for part, direction in zip(parts, directions, strict=True)]

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "average" not in state:
            state["average"] = torch.zeros_like(parameter)
        state["average"].lerp_(parameter.grad, 1.0 - momentum)
        return parameter.grad.lerp(state["average"], momentum)  # Nesterov's look ahead


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon should move it: a matrix between hidden states, in a block or a merger."""
    inside = ".blocks." in name or ".layers." in name or "merger" in name
    return parameter.dim() == 2 and inside
