"""Newton's method in full steps, without the care that hard problems need, for as long as nothing calls for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.solver import Factor
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import Counts, SolveReport, Status
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Outcome, Solver, WrappingSolver

ENOUGH = 0.6
"""A step may leave this share of the residual; the line search of `Newton` passes it from the root of 0.4 on, too."""
QUICK = 0.1
"""What the last step may leave: a residual that falls slowly to its tolerance may belong to a state that runs away."""


@dataclass
class UndampedNewton(WrappingSolver):
    """Newton's steps on a single residual, as `solver` would take them, each at the price of its factorisation.

    For small problems that are solved many times, where bookkeeping for batches and bad steps costs more than the algebra.
    From where a step does not lead on, or where the last matrix was singular, `solver` goes on; energies and batches are
    its alone.
    """

    solver: Solver = field(default_factory=Newton)
    most: int = 20

    def near(self) -> Solver:
        return self.solver.near()

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if record or u0.dim() > 1 or isinstance(problem, EnergyProblem):
            return self.solver.solve(problem, u0, params, record)
        began, history = time.perf_counter(), list[float]()
        evaluations = Evaluations(problem, params, self.linear)
        with torch.no_grad():
            end, threshold, factor = self._walk(evaluations, u0, history)
        if threshold is not None:
            report = SolveReport([Status.CONVERGED], end.norm, threshold, len(history), Counts(), 0.0)
            found = Outcome(end.u, report, factor, tangent=evaluations.known_tangent(end.u), point=end)
        else:
            found = self.solver.solve(problem, end.u, params)
            found.report.iterations += len(history)
        found.report.history = history + found.report.history
        found.report.counts.add(evaluations.counts)
        found.report.seconds = time.perf_counter() - began
        return found

    def _walk(
        self, evaluations: Evaluations, u0: Tensor, history: list[float]
    ) -> tuple[Point, Tensor | None, Factor | None]:
        """Where the steps ended; the threshold that the residual met there, None where it did not; the last factor."""
        point, factor, norm, last = evaluations.point(u0), None, 0.0, torch.inf
        if not bool(point.finite):
            return point, None, None
        evaluations.tangent(point.u)  # the first step needs it, so the scale may use it
        first = float(self.tolerance.threshold(evaluations.scale(point)))
        for _ in range(self.most):
            norm = float(point.norm)
            if norm <= first:
                threshold = self.tolerance.threshold(evaluations.scale(point))
                sound = norm <= min(float(threshold), QUICK * last) and not (factor and bool(factor.singular))
                return point, threshold if sound else None, factor
            factor = evaluations.linear.follow(evaluations.tangent(point.u), factor, on_fail="ignore")
            evaluations.counts.factorisations += 1
            evaluations.counts.back_substitutions += 1
            moved = evaluations.point(point.u - factor.solve(point.residual))
            if not float(moved.norm) <= ENOUGH * norm:  # nor where it is not a number
                break
            history.append(norm)
            point, last = moved, norm
        return point, None, factor
