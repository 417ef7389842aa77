"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.steps.barzilai_borwein import BarzilaiBorwein
from bilevel.solvers.steps.step import Step


class SteepestDescent(Descent):
    """d = -grad E."""

    natural_length = False

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        return -point.residual

    def metric(self) -> Metric | None:
        return lambda r: r


@dataclass
class GradientDescent(DescentSolver):
    """Gradient descent on an energy; Barzilai-Borwein lengths unless another step is given."""

    step: Step = field(default_factory=BarzilaiBorwein)
    max_iterations: int = 10_000
    energies_only = True

    def descent(self) -> Descent:
        return SteepestDescent()
