"""What every solver is: a way from a start to a solution, with a report of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.problem import Params, Problem
from bilevel.report import SolveReport, require
from bilevel.solvers.descent import Metric
from bilevel.solvers.evaluations import Point, Tolerance


@dataclass
class TapeEntry:
    """One linear iteration u <- u - length * P r(u), frozen so that it can be repeated under autograd."""

    length: Tensor
    metric: Metric


@dataclass
class Outcome:
    """What a solver found.

    factor: a factorisation of the tangent at or near u, where one was made. tangent, point: those at u, likewise.
    """

    u: Tensor
    report: SolveReport
    factor: Factor | None = None
    tape: list[TapeEntry] = field(default_factory=list)
    tangent: LinearOperator | None = None
    point: Point | None = None


class Solver(ABC):
    """Finds the solution of a problem at fixed parameters, without derivatives.

    linear: the linear solver of this solve and of all that follows from it: checks, adjoint, certificate.
    """

    tolerance: Tolerance
    linear: LinearSolver = Automatic()

    @abstractmethod
    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        """The state from the start u0 (*batch, n); never raises for lack of convergence, the report tells.

        record: keep the frozen iterations, for the unrolled adjoint.
        """

    @property
    def takes_guesses(self) -> bool:
        """Whether a guess near the solution may be taken in place of this solver's own way there."""
        return True

    def near(self) -> Solver:
        """The solver to take from a guess close to the solution: this one, unless it has a way of its own to get there."""
        return self


class WrappingSolver(Solver):
    """A solver that calls another one, and whose tolerance and linear solver are that one's."""

    solver: Solver

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.solver.tolerance

    @property
    def linear(self) -> LinearSolver:  # type: ignore[override]
        return self.solver.linear


def require_parts(tolerance: object, linear: object, max_iterations: int) -> None:
    """Raise InputError for what no loop can work with."""
    require(isinstance(tolerance, Tolerance), f"tolerance must be a bilevel.Tolerance(...), not {tolerance!r}")
    require(isinstance(linear, LinearSolver), f"linear must be a linear solver of bilevel.linalg, not {linear!r}")
    whole = isinstance(max_iterations, int) and max_iterations >= 0
    require(whole, f"max_iterations must be a whole number that is not negative, not {max_iterations!r}")
