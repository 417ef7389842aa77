"""Solutions as differentiable functions of parameters: `argmin`, `root` and `fixed_point`, as functions and as modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, get_args

import torch
from torch import Tensor

from bilevel.implicit import outer_gradient
from bilevel.implicit.layer import ImplicitState
from bilevel.implicit.leaves import refuse_undeclared, split_params
from bilevel.implicit.linearised_solve import LinearisedSolve
from bilevel.implicit.memory import Remembering
from bilevel.implicit.strategies import Adjoint, Exact, Unrolled
from bilevel.implicit.unrolled import unroll
from bilevel.implicit.visit import next_spot, no_places
from bilevel.problem import Energy, EnergyProblem, FixedPoint, Function, Params, Problem, Residual
from bilevel.report import OnFail, Solution
from bilevel.solvers.default import default_solver
from bilevel.solvers.solver import Solver
from bilevel.torch_internals import outside_compilation, without_saved_tensor_hooks


def argmin(
    energy: EnergyProblem | Function,
    u0: Tensor,
    params: Params = None,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """u* = argmin over u of E(u, params) from the start u0, differentiable in every tensor of params.

    energy: an `EnergyProblem`, or a function E(u, params) -> scalar, or a module. u0: any shape; its values only start
    the search. params: nested dicts of tensors. Raises ConvergenceError (unless on_fail says otherwise), SingularError,
    UndeclaredTensorError. Source: implicit function theorem, e.g. Griewank & Walther 2008, chapter 15.
    """
    problem = energy if isinstance(energy, EnergyProblem) else Energy(energy)
    return solve_implicitly(problem, u0, params, solver, adjoint, on_fail)


def root(
    residual: Problem | Function,
    u0: Tensor,
    params: Params = None,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """u* with r(u*, params) = 0 from the start u0, differentiable in every tensor of params; see `argmin`."""
    problem = residual if isinstance(residual, Problem) else Residual(residual)
    return solve_implicitly(problem, u0, params, solver, adjoint, on_fail)


def fixed_point(
    map: FixedPoint | Function,
    u0: Tensor,
    params: Params = None,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """u* = T(u*, params) from the start u0, differentiable in every tensor of params; see `argmin`."""
    problem = map if isinstance(map, FixedPoint) else FixedPoint(map)
    return solve_implicitly(problem, u0, params, solver, adjoint, on_fail)


@outside_compilation
def solve_implicitly(
    problem: Problem, u0: Tensor, params: Params, solver: Solver | None, adjoint: Adjoint | None, on_fail: OnFail
) -> Solution:
    """The layer behind argmin, root and fixed_point."""
    solver = solver or default_solver(problem)
    spot = next_spot()
    if spot is None:
        return _solve_implicitly(problem, u0, params, solver, adjoint, on_fail)
    with no_places():
        return _solve_implicitly(problem, u0, params, Remembering(solver, spot), adjoint, on_fail)


def _solve_implicitly(
    problem: Problem, u0: Tensor, params: Params, solver: Solver, adjoint: Adjoint | None, on_fail: OnFail
) -> Solution:
    _require_usable(solver, adjoint, on_fail)
    u0 = torch.as_tensor(u0).detach()
    if u0.is_complex():
        raise ValueError("the start is complex; write real and imaginary parts as two unknowns")
    if not u0.is_floating_point():
        u0 = u0.to(torch.get_default_dtype())
    if u0.numel() == 0:
        raise ValueError(f"the start has no entries (shape {tuple(u0.shape)}): there is nothing to solve for")
    problem = problem.for_unknown(u0)
    vector = u0.reshape(*u0.shape[: problem.batch_dims], -1)
    leaves, names, rebuild = split_params(problem.collect(params))
    linearised = LinearisedSolve(problem, rebuild, names, solver, adjoint or Exact(), on_fail)
    with without_saved_tensor_hooks():
        refuse_undeclared(problem, vector, rebuild, leaves, linearised.constants)
    linearised = outer_gradient.enter(linearised)
    u = (
        unroll(linearised, vector, leaves)
        if isinstance(linearised.adjoint, Unrolled)
        else ImplicitState.apply(linearised, vector, *leaves)
    )
    assert linearised.outcome is not None
    if (
        problem.closes_over and linearised.outcome.report.converged
    ):  # another branch of the problem may begin away from the start
        with without_saved_tensor_hooks():
            refuse_undeclared(problem, u, rebuild, leaves, linearised.constants)
    return Solution(u.reshape(u0.shape), linearised.outcome.report, linearised.gradients)


def _require_usable(solver: Solver, adjoint: Adjoint | None, on_fail: OnFail) -> None:
    """A misspelt on_fail would silence failures."""
    if on_fail not in get_args(OnFail):
        raise ValueError(f"on_fail must be one of {', '.join(map(repr, get_args(OnFail)))}, got {on_fail!r}")
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a solver such as bilevel.Newton(), got {solver!r}")
    if adjoint is not None and not isinstance(adjoint, Adjoint):
        raise TypeError(f"adjoint must be a strategy such as bilevel.Exact(), got {adjoint!r}")


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
        self.solution = replace(found, u=found.u.detach())  # kept with its graph, the module could not be copied
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
