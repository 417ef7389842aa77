"""The learned first guess as a solver: a few predicted linear systems, then a classical solver that has the last word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.problem import EnergyProblem, Params
from bilevel.solvers.cellwise.problem import CellwiseEnergy, CellwiseProblem, Guess, GuessedProblem
from bilevel.solvers.cellwise.solver import SYSTEMS, CellwiseSolver
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.load_stepping import LoadStepping, Path
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Solver
from bilevel.solvers.steps.armijo import Armijo

MAX_ITERATIONS = 300

LOAD_STEP = 25
"""Iterations in which a load step should end; a shorter one is tried where it does not."""


@dataclass
class LearnedGuess(CellwiseSolver):
    """Solves one linear system for each network, then runs `solver` from the best field found.

    make: the problem as linear systems, which the linear solver of `solver` factorises; None: the problem's own. networks: one
    for each system, None for a system without. solver, otherwise: as of every `CellwiseSolver`.
    """

    make: Callable[[EnergyProblem, Params], CellwiseProblem] | None
    networks: Sequence[nn.Module | None]
    solver: Solver
    otherwise: Sequence[Solver] = ()
    guess: ClassVar[str] = "a learned guess"

    def cellwise(self, problem: EnergyProblem, params: Params) -> CellwiseProblem | None:
        if self.make is not None:
            return self.make(problem, params)
        return problem.cellwise(params) if isinstance(problem, CellwiseEnergy) else None

    def systems(self) -> int:
        return len(self.networks)

    def asked(self, number: int, cellwise: CellwiseProblem, guess: Guess) -> Tensor | None:
        network = self.networks[number]
        if network is None or not isinstance(cellwise, GuessedProblem):
            return None
        guess.counts.inferences += 1
        return predict(network, cellwise, guess)


def predict(network: nn.Module, problem: GuessedProblem, guess: Guess) -> Tensor:
    """The outputs (cells, K) of a network."""
    outputs: Tensor = network(problem.features(guess), problem.incidence)
    return outputs.to(guess.u)


def guess_solver(
    networks: Sequence[nn.Module | None],
    make: Callable[[EnergyProblem, Params], CellwiseProblem] | None = None,
    tolerance: Tolerance | None = None,
    check_minimum: bool = True,
    path: Path | None = None,
    linear: LinearSolver | None = None,
) -> LearnedGuess:
    """Newton's method from a guess of up to SYSTEMS linear systems.

    One network serves all systems; of several each serves one, and none those that follow. make: as of `LearnedGuess`. linear:
    factorises the systems of the guess and of Newton's method; None for what suits each. Where the guess has no lower energy
    than the user's start, or Newton's method fails from it, it goes from that start; where a path of loads is given and
    that fails too, along the path.
    """
    each = list(networks)
    each += [each[0] if len(each) == 1 else None] * (SYSTEMS - len(each))
    newton = Newton(
        step=Armijo(decrease=0.3),
        linear=linear or Automatic(),
        tolerance=tolerance or Tolerance(),
        max_iterations=MAX_ITERATIONS,
        check_minimum=check_minimum,
    )
    otherwise: tuple[Solver, ...] = (newton,)
    if path is not None:
        step = replace(newton, max_iterations=LOAD_STEP)
        otherwise = (newton, LoadStepping(path, step, predict=True, from_rest=True))
    return LearnedGuess(make, each, newton, otherwise)
