"""Reaching a hard solution along a path of easier ones, with automatic cutback and growth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from bilevel.problem import Params, Problem
from bilevel.report import Counts
from bilevel.solvers.newton import Newton
from bilevel.solvers.oracle import Tolerance
from bilevel.solvers.solver import Outcome, Solver

Path = Callable[[Params, float], Params]
"""(params, t) -> the parameters at load fraction t; at t = 1 it must return `params` unchanged in value."""


@dataclass
class LoadStepping(Solver):
    """Solve at growing fractions t of the load, each from the last solution; halve on failure, grow on easy success.

    path: the parameters at fraction t. The layer's derivative is that of the last step alone, so it does not depend on
    the path. easy: a step that took at most this many iterations lets the next one grow.
    """

    path: Path
    inner: Solver = field(default_factory=lambda: Newton(max_iterations=25))
    first: float = 0.25
    smallest: float = 1e-4
    growth: float = 2.0
    easy: int = 8

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.inner.tolerance

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        started, total = time.perf_counter(), Counts()
        u, reached, increment, cutbacks, steps = u0, 0.0, self.first, 0, 0
        while True:
            target = min(1.0, reached + increment)
            at = params if target == 1.0 else self.path(params, target)
            outcome = self.inner.solve(problem, u, at, record=record and target == 1.0)
            total.add(outcome.report.counts)
            if outcome.report.converged:
                u, reached, steps = outcome.u, target, steps + 1
                if outcome.report.iterations <= self.easy:
                    increment *= self.growth
            else:
                cutbacks += 1
                increment = 0.5 * (target - reached)
            if reached == 1.0 or increment < self.smallest:
                break
        report = outcome.report
        report.counts, report.seconds = total, time.perf_counter() - started
        report.notes = [
            *report.notes,
            f"load stepping: {steps} steps, {cutbacks} cutbacks, reached {reached:.4g} of the load",
        ]
        return outcome
