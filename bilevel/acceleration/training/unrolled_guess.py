"""Learning the next linear system of a problem through its solution: the first guess, trained unrolled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilevel.acceleration.family import Instance
from bilevel.acceleration.learned_guess import predict
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.acceleration.training.loop import Objective
from bilevel.report import BilevelError, ConvergenceError
from bilevel.solvers.cellwise.unrolled import UnrolledProblem
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.newton import Newton
from bilevel.solvers.steps.armijo import Armijo

CLASSICAL_ROUNDS = 8
"""Linear systems without a network before Newton's method takes over, for the reference solutions."""

FLOOR = 1e-14
"""Energy errors below this fraction of the first one are as good as none."""


@dataclass(frozen=True, eq=False)
class SolvedGroup:
    """Problems side by side, their starts (n,) and their solutions (n,)."""

    problem: UnrolledProblem
    start: Tensor
    solution: Tensor


@dataclass(frozen=True)
class UnrolledGuess(Objective[SolvedGroup]):
    """The logarithm of the energy error after every linear system, relative to that of the start.

    The error is `UnrolledProblem.excess`. systems: how many of the first ones the network is asked for; None for all.
    """

    systems: int | None = None

    def prepare(self, instances: Sequence[Instance]) -> SolvedGroup:
        problems, solutions = [], []
        for instance in instances:
            if not isinstance(instance.cellwise, UnrolledProblem):
                raise BilevelError(
                    "a guess is trained unrolled on linear systems that are differentiable; this family has none"
                )
            problems.append(instance.cellwise)
            solutions.append(_solution(instance, instance.cellwise))
        starts = torch.cat([instance.start for instance in instances])
        return SolvedGroup(problems[0].side_by_side(problems), starts, torch.cat(solutions))

    def loss(self, network: nn.Module, group: SolvedGroup, rounds: int, kept: int) -> Tensor:
        problem = group.problem
        guess = problem.begin(group.start)
        first = problem.excess(guess, group.solution)
        total = torch.zeros((), dtype=torch.float64)
        for number in range(rounds):
            if number % kept == 0:
                guess = problem.detached(guess)
            asked = self.systems is None or number < self.systems
            guess = problem.solve(guess, predict(network if asked else None, problem, guess))
            total = total + (problem.excess(guess, group.solution) / first + FLOOR).log().mean()
        return total / rounds


def _solution(instance: Instance, problem: UnrolledProblem) -> Tensor:
    """The solution (n,) by linear systems without a network and Newton's method from the best of their energies."""
    guess, best = problem.begin(instance.start), instance.start
    lowest = instance.problem.value(best, instance.params)
    nothing = torch.zeros(problem.incidence.cells, len(problem.outputs), dtype=torch.float64)
    for _ in range(CLASSICAL_ROUNDS):
        try:
            guess = problem.solve(guess, nothing)
        except BilevelError:  # without a network the systems may run away
            break
        value = instance.problem.value(guess.u, instance.params)
        if bool(value < lowest):
            lowest, best = value, guess.u
    newton = Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-11), max_iterations=300)
    outcome = newton.solve(instance.problem, best, instance.params)
    if not outcome.report.converged:
        raise ConvergenceError(f"training needs solved instances: {outcome.report.sentence}")
    return outcome.u


def network_for(problem: UnrolledProblem, hidden: int, hops: int) -> CellNetwork:
    """A network with the inputs and outputs of a problem."""
    return CellNetwork(problem.feature_count, len(problem.outputs), hidden=hidden, hops=hops)
