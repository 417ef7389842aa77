"""Gradient descent in the metric of a preconditioner."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bilevel.linalg.preconditioner import Jacobi, Preconditioner
from bilevel.report import require
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.step import Step


class PreconditionedDescent(Descent):
    """d = -P grad E, with P made from the tangent at every `renewed`-th point."""

    linearises = True

    def __init__(self, preconditioner: Preconditioner, renewed: int) -> None:
        self.preconditioner, self.renewed = preconditioner, renewed
        self._count = 0
        self._metric: Metric | None = None

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        if self._metric is None or self._count % self.renewed == 0:
            self.tangent = evaluations.tangent(point.u)
            self._metric = self.preconditioner.of(self.tangent)
        self._count += 1
        return -self._metric(point.residual)

    def metric(self) -> Metric | None:
        return self._metric


@dataclass
class PreconditionedGradient(DescentSolver):
    """Gradient descent on an energy with P grad E in place of the gradient.

    preconditioner: `Jacobi()` or `Multigrid()`. renewed: after how many iterations P is made anew.
    """

    preconditioner: Preconditioner = field(default_factory=Jacobi)
    renewed: int = 10
    step: Step = field(default_factory=Armijo)
    max_iterations: int = 10_000
    energies_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.renewed >= 1, f"a preconditioner is renewed after at least one iteration, not {self.renewed}")

    def descent(self) -> Descent:
        return PreconditionedDescent(self.preconditioner, self.renewed)
