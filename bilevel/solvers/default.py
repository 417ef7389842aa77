"""Which solver each kind of problem gets unless the user names one: the best of the bench, and the only such table."""

from __future__ import annotations

from bilevel.problem import FixedPoint, Problem
from bilevel.solvers.cellwise.problem import SplitEnergy
from bilevel.solvers.fixed_point import Anderson
from bilevel.solvers.log_middle import LogMiddle
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Solver

DEFAULTS: tuple[tuple[type[Problem], type[Solver]], ...] = (
    (FixedPoint, Anderson),
    (SplitEnergy, LogMiddle),  # networks and meshes of nonlinear flow, total variation
    (Problem, Newton),  # all other energies, which may be bent, and residuals
)


def default_solver(problem: Problem) -> Solver:
    """The solver of the first kind in the table that a problem is of."""
    return next(solver() for kind, solver in DEFAULTS if isinstance(problem, kind))
