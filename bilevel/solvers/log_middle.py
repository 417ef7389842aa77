"""Convex energies of cells by linear systems about the logarithmic middle of two estimates of each cell's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bilevel.problem import EnergyProblem, Params
from bilevel.solvers.cellwise.problem import CellwiseProblem, SplitEnergy
from bilevel.solvers.cellwise.solver import CellwiseSolver
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Solver

SYSTEMS = 30
"""At most so many linear systems; few problems take more than eight."""


@dataclass
class LogMiddle(CellwiseSolver):
    """A primal-dual method for energies that split into cells, E(u) = sum over cells of psi(|g|) - f.u.

    Each linear system gives every cell a gradient, and a flux that balances the loads; the next one is made about the
    middle, on a logarithmic scale, of the gradient and of the one that belongs to the flux (`bilevel.solvers.cellwise.split`).
    solver: goes on from there, and decides on convergence; it begins at the start where a problem does not split.
    Source: in the spirit of Chan, Golub & Mulet 1999, SIAM J. Sci. Comput. 20, 1964.
    """

    solver: Solver = field(default_factory=Newton)

    def cellwise(self, problem: EnergyProblem, params: Params) -> CellwiseProblem | None:
        return problem.cellwise(params) if isinstance(problem, SplitEnergy) else None

    def systems(self) -> int:
        return SYSTEMS

    @property
    def otherwise(self) -> Sequence[Solver]:  # type: ignore[override]
        return (self.solver,)
