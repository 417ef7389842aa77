"""A solve from the best of several guesses of the solution; the start that was given, and its way, come to the rescue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilevel.linalg.solver import LinearSolver
from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, Counts
from bilevel.solvers.evaluations import Evaluations, Point, Tolerance
from bilevel.solvers.loop import DescentSolver, Outcome, Solver
from bilevel.solvers.steps.step import select

SAME_MERIT = 1e-9
"""Energies that differ by less, relative to their size, count as equal."""
FAR_BELOW = 1e-4
"""Residuals below this share of their tolerance, as Newton's method leaves them, need no correction."""


@dataclass
class WarmStart(Solver):
    """Solves by `solver` from the guess of least residual, or from the given start where that is better or the guess fails.

    The guess is left to `solver.near()`, which begins where it is told. It fails where that does not converge, or ends
    elsewhere: farther from the guess than from the given start, or with more energy than that has. What converged gets one correction
    more by the last factorisation: a good guess meets a tolerance by chance, and what remains would be noise to
    whoever compares states. exact: the first guess is a state found before at the same parameters, and taken as it is.
    """

    solver: Solver
    guesses: Sequence[Tensor]
    exact: bool = False

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.solver.tolerance

    @property
    def linear(self) -> LinearSolver:  # type: ignore[override]
        return self.solver.linear

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if record or not self.guesses:
            return self.solver.solve(problem, u0, params, record)
        began = time.perf_counter()
        evaluations = Evaluations(problem, params, self.linear)
        with torch.no_grad():
            try:
                found = self._from_guess(evaluations, u0)
            except BilevelError:  # ends the attempt, not the solve
                found = None
        if found is None:
            found = self.solver.solve(problem, u0, params)
            if evaluations.counts.warm_starts:
                evaluations.counts.fallbacks += 1
                found.report.notes.append(
                    "a remembered state did not lead to a solution nearby; solved from the given start"
                )
        found.report.counts.add(evaluations.counts)
        found.report.seconds = time.perf_counter() - began
        return found

    def _from_guess(self, evaluations: Evaluations, u0: Tensor) -> Outcome | None:
        """What is found from the best guess of each sample; None where that is the given start, or it fails."""
        cold = evaluations.point(u0)
        best, given = cold, torch.ones_like(cold.finite)
        for guess in self.guesses:
            point = evaluations.point(guess)
            better = point.finite & (~best.finite | (point.norm < best.norm))
            best, given = select(better, point, best), given & ~better
        if bool(given.all()):
            return None
        evaluations.counts.warm_starts += 1
        found = self.solver.near().solve(evaluations.problem, best.u, evaluations.params)
        evaluations.counts.add(found.report.counts)
        if not found.report.converged:
            return None
        end = evaluations.point(found.u) if self.exact else self._corrected(evaluations, found)
        if bool((_elsewhere(evaluations, end, best, cold) & ~given).any()):
            return None
        found.report.counts = Counts()  # they are among those of the evaluations
        if torch.equal(end.u, found.u):
            return found
        report = replace(found.report, residual=end.norm)
        return Outcome(end.u, report, found.factor, residual=end.residual)

    def _corrected(self, evaluations: Evaluations, found: Outcome) -> Point:
        """One more step by the last factorisation, where the residual is not far below its tolerance and it helps."""
        end = evaluations.point(found.u)
        if bool((end.norm <= FAR_BELOW * found.report.tolerance).all()):
            return end
        if found.factor is None and self._linearises():
            evaluations.counts.factorisations += 1
            found.factor = self.linear.factor(evaluations.tangent(end.u), on_fail="ignore")
        if found.factor is None:
            return end
        evaluations.counts.back_substitutions += 1
        moved = evaluations.point(end.u - found.factor.solve(end.residual))
        return select(moved.finite & (moved.norm < end.norm), moved, end)

    def _linearises(self) -> bool:
        near = self.solver.near()
        return isinstance(near, DescentSolver) and near.descent().linearises


def _elsewhere(evaluations: Evaluations, end: Point, guess: Point, cold: Point) -> Tensor:
    """Which samples (*batch) ended where the guess did not lead."""
    moved, apart = (torch.linalg.vector_norm(end.u - other.u, dim=-1) for other in (guess, cold))
    elsewhere = moved > apart
    if evaluations.is_energy:
        elsewhere = elsewhere | (cold.finite & (end.merit > cold.merit + SAME_MERIT * cold.merit.abs()))
    return elsewhere
