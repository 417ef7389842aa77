"""Newton's method for the increments of a march whose derivatives are wanted as well, without anything around it.

Every evaluation differentiates as it goes: the one that finds the residual small is also the tangent in the old state and
in the parameters. An increment that this does not solve in a few full steps is left to the solver that all others use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.implicit.memory import Spot
from physics.constitutive.inelastic.law import Values
from physics.soil.element_test import INCREMENT_NEWTON, STRAIN_UNIT, ControlledIncrement

STEPS = 8
"""Newton steps after which an increment is left to the safeguarded solver."""

Named = Callable[[Tensor], Values]
"""The law's parameters by name from a vector (..., parameters) of them."""


@dataclass(frozen=True)
class Increment:
    """The new state with the new strain (tests, n), in its typical size, and its derivatives in what it depends on.

    by_old (tests, n, n), by_theta (tests, n, parameters); steps: of Newton's method.
    """

    u: Tensor
    by_old: Tensor
    by_theta: Tensor
    steps: int


class Linearised:
    """The residual (tests, n) at u, with its derivatives at hand: the law's own and the machine's matrix."""

    def __init__(self, problem: ControlledIncrement, named: Named, u: Tensor, old: Tensor, theta: Tensor) -> None:
        size, new = problem.law.size, u * problem.units
        self._problem = problem
        self._law = problem.law.linearised(
            new[..., :size], new[..., size:] - old[..., size:], old[..., :size], named(theta)
        )
        self.residual = torch.cat([self._law.residual / STRAIN_UNIT, problem.missed(new, old)], -1)
        self.norm = torch.linalg.vector_norm(self.residual, dim=-1)

    def tangent(self) -> Tensor:
        """d residual / d u (tests, n, n)."""
        return self._tangent(*self._law.by_new())

    def solved(self, u: Tensor, steps: int) -> Increment:
        """What follows at a solution u, after one more correction that costs a right-hand side."""
        problem, slopes, n = self._problem, self._law.slopes(), u.shape[-1]
        by_old = torch.cat([slopes.by_previous, -slopes.by_increment], -1) / STRAIN_UNIT
        by_old = torch.cat([by_old, problem.missed_by_old()], -2)
        by_theta = torch.nn.functional.pad(slopes.by_values / STRAIN_UNIT, (0, 0, 0, 6))
        sides = torch.cat([by_old, by_theta, self.residual.unsqueeze(-1)], -1)
        found = torch.linalg.solve(self._tangent(slopes.by_state, slopes.by_increment), sides)
        return Increment(u - found[..., -1], -found[..., :n], -found[..., n:-1], steps)

    def _tangent(self, by_state: Tensor, by_increment: Tensor) -> Tensor:
        of_law = torch.cat([by_state, by_increment], -1) / STRAIN_UNIT
        return torch.cat([of_law, self._problem.machine], -2) * self._problem.units


def linearise(problem: ControlledIncrement, named: Named, u: Tensor, old: Tensor, theta: Tensor) -> Increment:
    """The derivatives at a solution u that was found elsewhere."""
    return Linearised(problem, named, u, old, theta).solved(u, 0)


def solve_remembered(
    problem: ControlledIncrement, named: Named, starts: Sequence[Tensor], old: Tensor, theta: Tensor, spot: Spot | None
) -> Increment | None:
    """From the best of several starts and of what is remembered of this increment, or of the starts alone; None if neither leads there."""
    with torch.no_grad():
        guesses = [] if spot is None else spot.visit.guesses(spot.place, starts[0])[0]
        found = None
        if guesses:
            start = _best(problem, [*starts, *guesses], named(theta), old)
            found = _newton(problem, named, start, old, theta)
            if found is not None and bool((_apart(found.u, start) > _apart(found.u, starts[0])).any()):
                found = None  # ended elsewhere than the guess led
        if found is None:
            start = _best(problem, starts, named(theta), old)
            found = _newton(problem, named, start, old, theta)
        if found is not None and spot is not None:
            spot.visit.keep(spot.place, starts[0], found.u)
        return found


def _newton(problem: ControlledIncrement, named: Named, start: Tensor, old: Tensor, theta: Tensor) -> Increment | None:
    u, factors, last = start, None, torch.full_like(start[:, 0], torch.inf)
    aim = INCREMENT_NEWTON.tolerance.absolute
    for steps in range(STEPS + 1):
        at = Linearised(problem, named, u, old, theta)
        largest = float(at.norm.max())  # NaN where one of them is
        if largest <= aim:
            return at.solved(u, steps)
        if not largest < torch.inf:
            return None
        # The factors of a step before do once more where they bring the residual as far down as they did.
        if factors is None or not bool((at.norm**2 <= aim * last).all()):
            packed, pivots, info = torch.linalg.lu_factor_ex(at.tangent())
            if bool(info.any()):
                return None
            factors = packed, pivots
        u, last = u - torch.linalg.lu_solve(*factors, at.residual.unsqueeze(-1)).squeeze(-1), at.norm
    return None


def _best(problem: ControlledIncrement, starts: Sequence[Tensor], values: Values, old: Tensor) -> Tensor:
    """For each test the start of least residual."""
    if len(starts) == 1:
        return starts[0]
    candidates = torch.stack(list(starts))
    norms = torch.linalg.vector_norm(problem.residual(candidates, (values, old)), dim=-1)
    best = norms.nan_to_num(nan=torch.inf).argmin(0)
    return candidates[best, torch.arange(len(best))]


def _apart(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.vector_norm(one - other, dim=-1)
