"""Nonlinear conjugate gradients (Polak & Ribiere 1969, with Powell's restart 1986)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.steps.step import Step
from bilevel.solvers.steps.strong_wolfe import StrongWolfe

TINY = 1e-300


class ConjugateDirection(Descent):
    """d = -r + beta d_before with beta = max(0, r.(r - r_before) / r_before.r_before), scaled to the length expected.

    The length is the one whose first-order decrease equals that of the last step (Nocedal & Wright 2006, section 3.5).
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None  # the last direction
        self._residual: Tensor | None = None  # where it started
        self._decrease: Tensor | None = None  # what the last step gained to first order

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        r = point.residual
        d = -r
        if self._before is not None and self._residual is not None:
            old = self._residual
            beta = ((r * (r - old)).sum(-1) / (old * old).sum(-1).clamp(min=TINY)).clamp(min=0.0)
            d = d + beta.unsqueeze(-1) * self._before
            d = torch.where(((d * r).sum(-1) < 0).unsqueeze(-1), d, -r)
        self._before, self._residual = d, r
        slope = -(d * r).sum(-1)
        expected = point.norm if self._decrease is None else self._decrease
        return (expected / slope.clamp(min=TINY)).unsqueeze(-1) * d

    def moved(self, old: Point, new: Point) -> None:
        self._decrease = -(old.residual * (new.u - old.u)).sum(-1)

    def metric(self) -> Metric | None:
        return None


@dataclass
class NonlinearCG(DescentSolver):
    """Polak-Ribiere+ conjugate gradients on an energy, with strong Wolfe steps unless another step is given."""

    step: Step = field(default_factory=StrongWolfe)
    max_iterations: int = 10_000
    energies_only = True

    def descent(self) -> Descent:
        return ConjugateDirection()
