"""Problems that stop a solver once its time is up, so that a hopeless baseline costs a bounded time."""

from __future__ import annotations

import time

from torch import Tensor

from bilevel.linalg.operator import LinearOperator
from bilevel.problem import EnergyProblem, Params
from bilevel.report import BilevelError


class OverBudget(BilevelError):
    """A solve that took longer than it was given."""


class Budgeted(EnergyProblem):
    """Another problem, which raises OverBudget when it is evaluated after `seconds` from now."""

    def __init__(self, problem: EnergyProblem, seconds: float) -> None:
        self.problem, self.structure, self.batch_dims = problem, problem.structure, problem.batch_dims
        self.end = time.process_time() + seconds

    def value(self, u: Tensor, params: Params) -> Tensor:
        return self._asked().value(u, params)

    def residual(self, u: Tensor, params: Params) -> Tensor:
        return self._asked().residual(u, params)

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        return self._asked().value_and_residual(u, params)

    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        return self._asked().tangent(u, params)

    def definite_tangent(self, u: Tensor, params: Params) -> LinearOperator | None:
        return self._asked().definite_tangent(u, params)

    def magnitude(self, u: Tensor, params: Params) -> Tensor | None:
        return self._asked().magnitude(u, params)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self._asked().product(u, params, x)

    def _asked(self) -> EnergyProblem:
        if time.process_time() > self.end:
            raise OverBudget("the solve took longer than its budget")
        return self.problem
