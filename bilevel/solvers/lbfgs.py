"""Limited-memory BFGS (Nocedal 1980; Liu & Nocedal 1989)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.report import require
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.steps.step import Step
from bilevel.solvers.steps.wolfe import Wolfe

Pair = tuple[Tensor, Tensor, Tensor]


class LimitedMemory(Descent):
    """d = -P grad E with P from the last moves s and gradient changes y (Nocedal & Wright 2006, algorithm 7.4)."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pairs: list[Pair] = []
        self.scale: Tensor | None = None

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        if self.scale is None:
            self.scale = 1.0 / point.norm.clamp(min=1e-20)
        return -two_loop(point.residual, self.pairs, self.scale)

    def metric(self) -> Metric | None:
        pairs, scale = list(self.pairs), self.scale
        assert scale is not None
        return lambda r: two_loop(r, pairs, scale)

    def moved(self, old: Point, new: Point) -> None:
        s, y = new.u - old.u, new.residual - old.residual
        curvature = (s * y).sum(-1)
        bent = curvature > 1e-12 * torch.linalg.vector_norm(s, dim=-1) * torch.linalg.vector_norm(y, dim=-1)
        if not bool(bent.any()):
            return
        # A sample whose pair carries no curvature gets weight zero: the pair then leaves its metric unchanged.
        rho = torch.where(
            bent, 1.0 / torch.where(bent, curvature, torch.ones_like(curvature)), torch.zeros_like(curvature)
        )
        self.pairs = [*self.pairs, (s, y, rho)][-self.memory :]
        fresh = curvature / (y * y).sum(-1).clamp(min=1e-300)
        assert self.scale is not None
        self.scale = torch.where(bent, fresh, self.scale)


def two_loop(gradient: Tensor, pairs: list[Pair], scale: Tensor) -> Tensor:
    """The two-loop recursion: P applied to `gradient` (*batch, n)."""
    q, weights = gradient, []
    for s, y, rho in reversed(pairs):
        weight = rho * (s * q).sum(-1)
        weights.append(weight)
        q = q - weight.unsqueeze(-1) * y
    q = scale.unsqueeze(-1) * q
    for (s, y, rho), weight in zip(pairs, reversed(weights), strict=True):
        q = q + (weight - rho * (y * q).sum(-1)).unsqueeze(-1) * s
    return q


@dataclass
class LBFGS(DescentSolver):
    """L-BFGS on an energy, keeping `memory` pairs; weak Wolfe steps unless another step is given."""

    step: Step = field(default_factory=Wolfe)
    max_iterations: int = 10_000
    memory: int = 10
    energies_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.memory >= 1, f"L-BFGS needs to keep at least one pair, not {self.memory}")

    def descent(self) -> Descent:
        return LimitedMemory(self.memory)
