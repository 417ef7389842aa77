"""A solve from the best of several guesses of the solution; the start that was given, and its way, come to the rescue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, Counts, SolveReport, Status
from bilevel.solvers.evaluations import SAME_ENERGY, Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.solver import Outcome, Solver, WrappingSolver
from bilevel.solvers.steps.step import select

GOOD = 1e-2
"""A guess that leaves this share of the given start's residual is taken without a look at those after it."""
SAME_MERIT = 1e-9
"""A solution may have so much more energy than the given start, relative to its size."""


@dataclass
class WarmStart(WrappingSolver):
    """Solves by `solver` from the guess of least energy (or residual), or from the given start where that is better or the guess fails.

    The guess is left to `solver.near()`, which begins where it is told; Newton's method keeps its factorisations. The guess fails where that does not converge, or ends elsewhere: farther from the guess than from
    the given start, or with more energy than that has. exact: the first guess is a state found before at the same
    parameters; it is taken as it is if it is a solution.
    """

    solver: Solver
    guesses: Sequence[Tensor]
    exact: bool = False

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if record or not self.guesses or not self.solver.takes_guesses:
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
        else:
            found.report.reached_from = "an earlier state"
        found.report.counts.add(evaluations.counts)
        found.report.seconds = time.perf_counter() - began
        return found

    def _from_guess(self, evaluations: Evaluations, u0: Tensor) -> Outcome | None:
        """What is found from the best guess of each sample; None where that is the given start, or it fails."""
        if self.exact:
            known = evaluations.point(self.guesses[0])
            threshold = self.tolerance.threshold(evaluations.scale(known))
            if bool((known.norm <= threshold).all()):
                evaluations.counts.warm_starts += 1
                status = [Status.CONVERGED] * max(1, known.norm.numel())
                report = SolveReport(status, known.norm, threshold, 0, Counts(), 0.0)
                return Outcome(known.u, report, point=known)
        cold = evaluations.point(u0)
        best, given = cold, torch.ones_like(cold.finite)
        for guess in self.guesses:
            point = evaluations.point(guess)
            better = _better(point, best)
            best, given = select(better, point, best), given & ~better
            if bool((better & (point.norm <= GOOD * cold.norm)).all()):
                break
        if bool(given.all()):
            return None
        evaluations.counts.warm_starts += 1
        found = self._near(evaluations, best)
        if not found.report.converged:
            return None
        end = evaluations.point(found.u) if found.point is None else found.point
        return None if bool((_elsewhere(evaluations, end, best, cold) & ~given).any()) else found

    def _near(self, evaluations: Evaluations, guess: Point) -> Outcome:
        """What is found from a guess; the report's counts are left to `evaluations`."""
        near = self.solver.near()
        if isinstance(near, DescentSolver):
            found = near.go_on(evaluations, guess)
        else:
            found = near.solve(evaluations.problem, guess.u, evaluations.params)
            evaluations.counts.add(found.report.counts)
        found.report.counts = Counts()
        return found


def _better(one: Point, other: Point) -> Tensor:
    """Which samples (*batch) have less energy (or residual), or as much to round-off and less residual.

    A residual alone would prefer a state that is far off in soft directions to one that is a little off in stiff ones.
    """
    slack = SAME_ENERGY * other.merit.abs()
    lower = (one.merit < other.merit - slack) | ((one.merit <= other.merit + slack) & (one.norm < other.norm))
    return one.finite & (~other.finite | lower)


def _elsewhere(evaluations: Evaluations, end: Point, guess: Point, cold: Point) -> Tensor:
    """Which samples (*batch) ended where the guess did not lead."""
    moved, apart = (torch.linalg.vector_norm(end.u - other.u, dim=-1) for other in (guess, cold))
    elsewhere = moved > apart
    if evaluations.is_energy:
        elsewhere = elsewhere | (cold.finite & (end.merit > cold.merit + SAME_MERIT * cold.merit.abs()))
    return elsewhere
