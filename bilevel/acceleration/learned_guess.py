"""The learned first guess as a solver: a few predicted linear systems, then a classical solver that has the last word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilevel.acceleration.cellwise.problem import CellwiseProblem, Guess
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError, Counts
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.load_stepping import LoadStepping, Path
from bilevel.solvers.loop import Outcome, Solver
from bilevel.solvers.newton import Newton
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.step import Step
from bilevel.solvers.steps.trust_region import TrustRegion

SYSTEMS = 16
"""At most so many linear systems in a guess; few problems take more than eight."""

MAX_ITERATIONS = 300

LOAD_STEP = 15
"""Iterations in which a load step should end; a shorter one is tried where it does not."""

FROM_GUESS = 60
"""Iterations from a guess that makes load steps needless; many short steps of a trust region still cost less than those."""

NOISE = 1e-12
"""Energies this close, relative to their size, count as equal: a warm start may be as good as the solution."""


@dataclass
class LearnedGuess(Solver):
    """Solves one linear system for each network, then runs `solver` from the best field found.

    make: the problem as linear systems, which the linear solver of `solver` factorises. networks: one for
    each system, None for a system without. solver: decides on convergence, as it would without any guess. otherwise: take
    over one after the other, from the start that the user gave, where `solver` fails, so that nothing is lost but time.
    """

    make: Callable[[EnergyProblem, Params], CellwiseProblem]
    networks: Sequence[nn.Module | None]
    solver: Solver
    otherwise: Sequence[Solver] = ()

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.solver.tolerance

    @property
    def linear(self) -> LinearSolver:  # type: ignore[override]
        return self.solver.linear

    def near(self) -> Solver:
        return self.solver

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if not isinstance(problem, EnergyProblem):
            raise BilevelError("a learned guess minimises energies; this problem has none")
        started = time.perf_counter()
        with torch.no_grad():
            u, counts = self._guess(problem, u0, params)
        outcome = self.solver.solve(problem, u, params, record)
        notes = list(outcome.report.notes)
        for classical in self.otherwise:
            if outcome.report.converged:
                break
            counts.add(outcome.report.counts)
            counts.fallbacks += 1
            notes.append(f"no solution yet; {type(classical).__name__} took over from the start")
            outcome = classical.solve(problem, u0, params, record)
        outcome.report.counts.add(counts)
        outcome.report.notes = notes
        outcome.report.seconds = time.perf_counter() - started
        return outcome

    def _guess(self, problem: EnergyProblem, u0: Tensor, params: Params) -> tuple[Tensor, Counts]:
        """The last system's field; where that has more energy than u0, the field that has least."""
        cellwise = self.make(problem, params)
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
        """u0 and the field of every system, until one settles or cannot be solved."""
        guess, fields = cellwise.begin(u0), [u0]
        counts = guess.counts
        try:
            for network in self.networks:
                if cellwise.near_solution(guess):
                    break
                guess = cellwise.solve(guess, predict(network, cellwise, guess))
                counts = guess.counts
                counts.inferences += network is not None
                fields.append(guess.u)
        except BilevelError:  # ends the guess, not the solve
            counts.fallbacks += 1
        return fields, counts


def predict(network: nn.Module | None, problem: CellwiseProblem, guess: Guess) -> Tensor:
    """The outputs (cells, K) of a network, or zeros without one."""
    if network is None:
        return torch.zeros(problem.incidence.cells, len(problem.outputs), dtype=guess.u.dtype)
    outputs: Tensor = network(problem.features(guess), problem.incidence)
    return outputs.to(guess.u)


def guess_solver(
    networks: Sequence[nn.Module | None],
    make: Callable[[EnergyProblem, Params], CellwiseProblem],
    tolerance: Tolerance,
    check_minimum: bool = True,
    path: Path | None = None,
    linear: LinearSolver | None = None,
) -> LearnedGuess:
    """Newton's method from a guess of up to SYSTEMS linear systems.

    One network serves all systems; of several each serves one, and none those that follow. linear: factorises the systems of
    the guess and of Newton's method; None for what suits each. Where the guess has no lower energy than the user's start, or Newton's method fails from it, the classical solve
    follows from that start. Where a path of loads is given, load steps from the unloaded state take its place: first such
    as end soon or are cut back, then such as may take all iterations that a trust region needs.
    """
    each = list(networks)
    each += [each[0] if len(each) == 1 else None] * (SYSTEMS - len(each))

    def newton(step: Step, iterations: int = MAX_ITERATIONS) -> Newton:
        return Newton(
            step=step,
            linear=linear or Automatic(),
            tolerance=tolerance,
            max_iterations=iterations,
            check_minimum=check_minimum,
        )

    if path is None:
        classical = newton(Armijo(decrease=0.3))
        return LearnedGuess(make, each, classical, otherwise=(classical,))
    quick, patient = (
        LoadStepping(path, newton(TrustRegion(), iterations), predict=True, from_rest=True)
        for iterations in (LOAD_STEP, MAX_ITERATIONS)
    )
    return LearnedGuess(make, each, newton(TrustRegion(), FROM_GUESS), otherwise=(quick, patient))
