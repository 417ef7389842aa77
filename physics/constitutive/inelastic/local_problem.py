"""Small dense problems, many samples at once, as the constitutive models pose them: quick tangents and full Newton steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.operator import Dense, LinearOperator
from bilevel.problem import Params, Problem
from bilevel.solvers import Newton, Tolerance
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps import Armijo
from bilevel.solvers.steps.step import Move, backtrack


class LocalProblem(Problem):
    """A residual problem whose residual also accepts further leading dimensions of the unknown.

    All rows of the tangent come from one reverse pass over as many copies of the samples, an order of magnitude quicker
    here than forward mode: many small operations with constants, whose zero tangents PyTorch handles slowly.
    """

    batch_dims = 1

    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        with torch.enable_grad():
            copies = u.detach().expand(u.shape[-1], *u.shape).clone().requires_grad_()
            (rows,) = torch.autograd.grad(self.residual(copies, params), copies, unit_cotangents(u))
        return Dense(rows.movedim(0, -2), self.structure)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        """The tangent is the transpose of its transpose: two reverse passes."""
        vjp = torch.func.vjp(lambda v: self.residual(v, params), u)[1]
        return torch.func.vjp(lambda w: vjp(w)[0], torch.zeros_like(u))[1](x)[0]


def unit_cotangents(u: Tensor) -> Tensor:
    """e_i for copy i of every sample, (n, *batch, n)."""
    n = u.shape[-1]
    rows = torch.eye(n, dtype=u.dtype, device=u.device).reshape(n, *([1] * (u.dim() - 1)), n)
    return rows.expand(n, *u.shape)


@dataclass
class FullSteps(Armijo):
    """Full Newton steps, shortened only where they leave the domain of the equations; Armijo's rule after `patience` of them.

    Complementarity conditions are piecewise smooth: full steps change the active branch and then converge quadratically,
    where a decrease demanded of every step would crawl along the kink (Qi & Sun 1993).
    """

    patience: int = 15
    _taken: int = field(default=0, init=False, repr=False)

    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        direction = descent.direction(evaluations, point)
        self._taken += 1
        if self._taken > self.patience:
            # The linearised residual is solved exactly, so the slope of |r|^2/2 along the direction is -|r|^2.
            return self.search(evaluations, point, direction, -2.0 * point.merit, active)
        length = torch.ones_like(point.merit)
        return backtrack(
            evaluations, point, direction, length, active, lambda trial, _: trial.finite, self.shrink, self.max_trials
        )


def local_newton(absolute: float, max_iterations: int = 40) -> Newton:
    """Newton's method for dimensionless residuals, to an absolute tolerance near rounding."""
    return Newton(step=FullSteps(), tolerance=Tolerance(relative=0.0, absolute=absolute), max_iterations=max_iterations)
