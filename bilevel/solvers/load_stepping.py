"""Reaching a hard solution along a path of easier ones, with automatic cutback and growth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.problem import Params, Problem
from bilevel.report import Counts, require
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Outcome, Solver, WrappingSolver
from bilevel.torch_internals import pytree

Path = Callable[[Params, float], Params]
"""(params, t) -> the parameters at load fraction t; at t = 1 it must return `params` unchanged in value."""


@dataclass
class LoadStepping(WrappingSolver):
    """Solve at growing fractions t of the load, each from the last solution; halve on failure, grow on easy success.

    path: the parameters at fraction t. The layer's derivative is that of the last step alone, so it does not depend on
    the path. easy: a step that took at most this many iterations lets the next one grow. predict: start each step along
    the path's tangent, by one back-substitution with the last factorisation; u0 is then the state at t = 0. from_rest: that
    state is u = 0, whatever u0 is. insist: a guess near the solution is not taken either, for it may lie on another branch.
    """

    path: Path
    solver: Solver = field(default_factory=lambda: Newton(max_iterations=25))
    first: float = 0.25
    smallest: float = 1e-4
    growth: float = 2.0
    easy: int = 8
    predict: bool = False
    from_rest: bool = False
    insist: bool = False

    def __post_init__(self) -> None:
        require(callable(self.path), f"path must be a function of parameters and fraction, not {self.path!r}")
        sized = 0 < self.smallest <= self.first <= 1 and self.growth >= 1
        require(sized, "load steps need 0 < smallest <= first <= 1 and growth >= 1")

    def near(self) -> Solver:
        return self.solver.near()

    @property
    def takes_guesses(self) -> bool:
        return not self.insist

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        started, total = time.perf_counter(), Counts()
        u0 = torch.zeros_like(u0) if self.from_rest else u0
        u, reached, increment, cutbacks, steps = u0, 0.0, self.first, 0, 0
        predictor = TangentPredictor(problem, u0, self.path(params, 0.0), self.linear, total) if self.predict else None
        while True:
            target = min(1.0, reached + increment)
            at = params if target == 1.0 else self.path(params, target)
            start = u if predictor is None else predictor.at(at)
            outcome = self.solver.solve(problem, start, at, record=record and target == 1.0)
            total.add(outcome.report.counts)
            if outcome.report.converged:
                u, reached, steps = outcome.u, target, steps + 1
                if predictor is not None:
                    predictor.moved(u, at, outcome.factor)
                if outcome.report.iterations <= self.easy:
                    increment *= self.growth
            else:
                cutbacks += 1
                increment = 0.5 * (target - reached)
            if reached == 1.0 or increment < self.smallest:
                break
        report = outcome.report
        report.reached_from = "a path of loads"
        report.counts, report.seconds = total, time.perf_counter() - started
        report.notes = [
            *report.notes,
            f"load stepping: {steps} steps, {cutbacks} cutbacks, reached {reached:.4g} of the load",
        ]
        return outcome


class TangentPredictor:
    """u - H^-1 dr/dp (p' - p) from a solution u at parameters p: the first Newton step for all loads at once."""

    def __init__(self, problem: Problem, u: Tensor, params: Params, linear: LinearSolver, counts: Counts) -> None:
        self.problem, self.linear, self.counts = problem, linear, counts
        self.moved(u, params, None)

    def moved(self, u: Tensor, params: Params, factor: Factor | None) -> None:
        if factor is None:
            self.counts.factorisations += 1
            factor = self.linear.factor(self.problem.tangent(u, params), on_fail="ignore")
        self.u, self.params, self.factor = u, params, factor

    def at(self, params: Params) -> Tensor:
        change = pytree.tree_map(lambda new, old: new - old, params, self.params)
        self.counts.products += 1
        self.counts.back_substitutions += 1
        force = torch.func.jvp(lambda p: self.problem.residual(self.u, p), (self.params,), (change,))[1]
        return self.u - self.factor.solve(force)
