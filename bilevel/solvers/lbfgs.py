"""Limited-memory BFGS (Nocedal 1980; Liu & Nocedal 1989)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.report import require
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.secants import Pair, secant_pair, two_loop
from bilevel.solvers.steps.step import Step
from bilevel.solvers.steps.wolfe import Wolfe


class LimitedMemory(Descent):
    """d = -P grad E with P from the last moves s and gradient changes y (Nocedal & Wright 2006, algorithm 7.4)."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pairs: list[Pair] = []
        self.scale: Tensor | None = None

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        if self.scale is None:
            self.scale = 1.0 / point.norm.clamp(min=1e-20)
        return -two_loop(point.residual, self.pairs, self._scaled)

    def metric(self) -> Metric | None:
        pairs, scale = list(self.pairs), self.scale
        assert scale is not None
        return lambda r: two_loop(r, pairs, lambda q: scale.unsqueeze(-1) * q)

    def moved(self, old: Point, new: Point) -> None:
        pair = secant_pair(old, new)
        if pair is None:
            return
        self.pairs = [*self.pairs, pair][-self.memory :]
        _, y, rho = pair
        fresh = 1.0 / (rho * (y * y).sum(-1)).clamp(min=1e-300)
        assert self.scale is not None
        self.scale = torch.where(rho > 0, fresh, self.scale)

    def _scaled(self, q: Tensor) -> Tensor:
        assert self.scale is not None
        return self.scale.unsqueeze(-1) * q


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
