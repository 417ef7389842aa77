"""The implicit layers as PyTorch modules, for use inside networks and with optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from bilevel.implicit.layer import argmin, fixed_point, root
from bilevel.implicit.strategies import Adjoint
from bilevel.problem import Function, Params, Problem
from bilevel.report import OnFail, Solution
from bilevel.solvers.loop import Solver


class ImplicitLayer(torch.nn.Module):
    """forward(u0, params) -> u*; a module given as the problem is registered, so that optimisers find its parameters.

    After a call `solution` holds the state's report and, after a backward pass, the gradient's certificate.
    """

    _solve: ClassVar[Callable[..., Solution]]

    def __init__(
        self,
        problem: Problem | Function,
        *,
        solver: Solver | None = None,
        adjoint: Adjoint | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        self.problem = problem
        self.solver, self.adjoint, self.on_fail = solver, adjoint, on_fail
        self.solution: Solution | None = None

    def forward(self, u0: Tensor, params: Params = None) -> Tensor:
        solve = type(self)._solve
        found = solve(self.problem, u0, params, solver=self.solver, adjoint=self.adjoint, on_fail=self.on_fail)
        self.solution = found
        return found.u


class ArgMin(ImplicitLayer):
    """`bilevel.argmin` as a module."""

    _solve = staticmethod(argmin)


class Root(ImplicitLayer):
    """`bilevel.root` as a module."""

    _solve = staticmethod(root)


class FixedPointLayer(ImplicitLayer):
    """`bilevel.fixed_point` as a module."""

    _solve = staticmethod(fixed_point)
