"""Learning how far to go along Newton's directions, unrolled: the moves add up, the directions are held fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bilevel.acceleration.family import Instance
from bilevel.acceleration.learned_step import displacement, propose
from bilevel.acceleration.networks.node_network import View
from bilevel.acceleration.training.loop import Objective
from bilevel.report import ConvergenceError
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point, Tolerance
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.newton import Newton, NewtonDirection
from bilevel.solvers.steps.armijo import Armijo

FLOOR = 1e-10
"""Energy errors below this fraction of the first one are as good as none."""


@dataclass(frozen=True, eq=False)
class SolvedInstance:
    """An instance, what its network reads that does not change, and the lowest energy."""

    instance: Instance
    view: View
    lowest: Tensor
    first: Tensor


@dataclass
class UnrolledStep(Objective[list[SolvedInstance]]):
    """The logarithm of the excess energy after every step, relative to that of the start.

    reference: finds the solutions. A step that Armijo's test would not take is learned from, then replaced by Armijo's.
    """

    reference: DescentSolver = field(
        default_factory=lambda: Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-10), max_iterations=300)
    )

    def prepare(self, instances: Sequence[Instance]) -> list[SolvedInstance]:
        return [self._solved(instance) for instance in instances]

    def loss(self, network: nn.Module, group: list[SolvedInstance], rounds: int, kept: int) -> Tensor:
        return torch.stack([_one(network, solved, rounds, kept) for solved in group]).mean()

    def _solved(self, instance: Instance) -> SolvedInstance:
        problem, params = instance.problem, instance.params
        outcome = self.reference.solve(problem, instance.start, params)
        if not outcome.report.converged:
            raise ConvergenceError(f"training needs solved instances: {outcome.report.sentence}")
        lowest = problem.value(outcome.u, params)
        return SolvedInstance(
            instance, View(instance.read_by_steps), lowest, problem.value(instance.start, params) - lowest
        )


def _one(network: nn.Module, solved: SolvedInstance, rounds: int, kept: int) -> Tensor:
    instance = solved.instance
    evaluations, fallback = Evaluations(instance.problem, instance.params), Armijo(decrease=0.3)
    descent: Descent = NewtonDirection()
    u, last = instance.start, None
    total = torch.zeros((), dtype=torch.float64)
    for number in range(rounds):
        if number % kept == 0:
            u, last = u.detach(), None if last is None else last.detach()
        with torch.no_grad():
            point = evaluations.point(u.detach())
            direction = descent.direction(evaluations, point)
        move = displacement(
            propose(network, solved.view, point, direction, last), instance.read_by_steps, direction, last
        )
        excess = (instance.problem.value(u + move, instance.params) - solved.lowest) / solved.first
        total = total + (excess.clamp(min=0.0) + FLOOR).log()
        with torch.no_grad():
            taken = _guarded(evaluations, fallback, descent, point, direction, move.detach())
        u = u + move if taken is None else taken
        last = move if taken is None else taken - point.u
    return total / rounds


def _guarded(
    evaluations: Evaluations, fallback: Armijo, descent: Descent, point: Point, direction: Tensor, move: Tensor
) -> Tensor | None:
    """None where a move decreases the energy enough, else where Armijo's step leads."""
    slope = evaluations.slope(point, move)
    trial = evaluations.point(point.u + move)
    if bool(trial.finite & (slope < 0) & (trial.merit <= point.merit + 1e-4 * slope)):
        return None
    active = torch.ones((), dtype=torch.bool)
    return fallback.search(evaluations, point, direction, evaluations.slope(point, direction), active).point.u
