"""Solvers that first solve a few linear systems which cells make, then leave the last word to a classical solver."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError, Counts
from bilevel.solvers.cellwise.problem import CellwiseProblem, Guess
from bilevel.solvers.solver import Outcome, Solver, WrappingSolver

SYSTEMS = 16
"""At most so many linear systems in a guess; few problems take more than eight."""

NOISE = 1e-12
"""Energies this close, relative to their size, count as equal: a warm start may be as good as the solution."""


class CellwiseSolver(WrappingSolver):
    """Solves linear systems made from states of cells, then runs `solver` from the best field found.

    solver: decides on convergence, as it would without any guess. otherwise: take over one after the other, from the start
    that the user gave, where `solver` fails, so that nothing is lost but time.
    """

    solver: Solver
    otherwise: Sequence[Solver]
    guess: ClassVar[str] = "a guess by linear systems"
    """What the report says that the solution was reached from."""

    @abstractmethod
    def cellwise(self, problem: EnergyProblem, params: Params) -> CellwiseProblem | None:
        """The problem as linear systems, or None where it has no such form and `solver` begins at the start."""

    @abstractmethod
    def systems(self) -> int:
        """At most so many."""

    def asked(self, number: int, cellwise: CellwiseProblem, guess: Guess) -> Tensor | None:
        """What states the cells choose for a system (cells, K); None: as the problem's own rule says."""
        return None

    def near(self) -> Solver:
        return self.solver

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if not isinstance(problem, EnergyProblem):
            raise BilevelError(f"{type(self).__name__} minimises energies; this problem has none")
        if record:  # an unrolled adjoint needs all iterations from the start
            return self.solver.solve(problem, u0, params, record)
        started = time.perf_counter()
        with torch.no_grad():
            cellwise = self.cellwise(problem, params)
            u, counts = (u0, Counts()) if cellwise is None else self._guess(cellwise, problem, u0, params)
        outcome = self.solver.solve(problem, u, params)
        if u is not u0:
            outcome.report.reached_from = self.guess
        notes = list(outcome.report.notes)
        for classical in self.otherwise:
            if outcome.report.converged or (u is u0 and classical is self.solver):
                break
            counts.add(outcome.report.counts)
            counts.fallbacks += 1
            notes.append(f"no solution yet; {type(classical).__name__} took over from the start")
            outcome = classical.solve(problem, u0, params)
        outcome.report.counts.add(counts)
        outcome.report.notes = notes
        outcome.report.seconds = time.perf_counter() - started
        return outcome

    def _guess(
        self, cellwise: CellwiseProblem, problem: EnergyProblem, u0: Tensor, params: Params
    ) -> tuple[Tensor, Counts]:
        """The last system's field; where that has more energy than u0, the field that has least."""
        if cellwise.linear_solver is None:
            cellwise.linear_solver = self.linear
        fields, counts = self._fields(cellwise, u0)
        before, after = (problem.value(u, params) for u in (u0, fields[-1]))
        counts.values += 2
        if bool(torch.isfinite(after)) and bool(after <= before + NOISE * before.abs()):
            return fields[-1], counts
        energies = torch.stack([problem.value(u, params) for u in fields])
        counts.values += len(fields)
        counts.fallbacks += 1
        return fields[int(energies.nan_to_num(torch.inf).argmin())], counts

    def _fields(self, cellwise: CellwiseProblem, u0: Tensor) -> tuple[list[Tensor], Counts]:
        """u0 and the field of every system, until one is near the solution or cannot be solved."""
        fields, counts = [u0], Counts()
        try:
            guess = cellwise.begin(u0)
            counts = guess.counts
            for number in range(self.systems()):
                if cellwise.near_solution(guess):
                    break
                guess = cellwise.solve(guess, self.asked(number, cellwise, guess))
                counts = guess.counts
                fields.append(guess.u)
        except BilevelError:  # ends the guess, not the solve
            counts.fallbacks += 1
        return fields, counts
