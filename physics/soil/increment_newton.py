"""Newton's method for the increments of a march whose derivatives are wanted as well, without anything around it.

Every evaluation differentiates as it goes: the one that finds the residual small is also the tangent in the old state and
in the parameters. An increment that this does not solve in a few full steps is left to the solver that all others use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.report import Counts
from physics.constitutive.inelastic.law import Values
from physics.soil.element_test import INCREMENT_NEWTON, STRAIN_UNIT, ControlledIncrement

STEPS = 8
"""Newton steps after which an increment is left to the safeguarded solver."""
NEAR, FELL = 1e3, 1e-6
"""A residual within NEAR of its tolerance that a step made FELL times as small is as good as met: the correction that closes
an increment makes it FELL^2 times as small again, and FELL^2 is what the derivatives are off by."""
SAME = 1e-6
"""Relative distance between states that are no two solutions."""

Named = Callable[[Tensor], Values]
"""The law's parameters by name from a vector (..., parameters) of them."""


@dataclass(frozen=True)
class Increment:
    """The new state with the new strain (tests, n), in its typical size, and its derivatives in what it depends on.

    by_old (tests, n, n), by_theta (tests, n, parameters).
    """

    u: Tensor
    by_old: Tensor
    by_theta: Tensor


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

    def solved(self, u: Tensor) -> Increment:
        """What follows at a solution u, after one more correction that costs a right-hand side."""
        problem, slopes, n = self._problem, self._law.slopes(), u.shape[-1]
        by_old = torch.cat([slopes.by_previous, -slopes.by_increment], -1) / STRAIN_UNIT
        by_old = torch.cat([by_old, problem.missed_by_old()], -2)
        by_theta = torch.nn.functional.pad(slopes.by_values / STRAIN_UNIT, (0, 0, 0, 6))
        sides = torch.cat([by_old, by_theta, self.residual.unsqueeze(-1)], -1)
        found = torch.linalg.solve(self._tangent(slopes.by_state, slopes.by_increment), sides)
        return Increment(u - found[..., -1], -found[..., :n], -found[..., n:-1])

    def _tangent(self, by_state: Tensor, by_increment: Tensor) -> Tensor:
        of_law = torch.cat([by_state, by_increment], -1) / STRAIN_UNIT
        return torch.cat([of_law, self._problem.machine], -2) * self._problem.units


def linearise(problem: ControlledIncrement, named: Named, u: Tensor, old: Tensor, theta: Tensor) -> Increment:
    """The derivatives at a solution u that was found elsewhere."""
    return Linearised(problem, named, u, old, theta).solved(u)


class IncrementStarts:
    """Where Newton may begin the increments of a march: guesses, each also with what it missed in the increment before.

    Each test takes the one that was nearest the last time, of equally near ones the first.
    """

    def __init__(self) -> None:
        self._made = self._missed = self._distance = torch.zeros(0)

    def of(
        self, problem: ControlledIncrement, old: Tensor, move: Tensor, guess: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The start (tests, n) to take, and the two without memory; move: of the increment before, guess: what is remembered."""
        straight, ratio = problem.predict(old, move)
        missed = self._missed if len(self._missed) else straight.new_zeros(4, *straight.shape)
        made = [] if guess is None else [guess + ratio.abs() * missed[1], guess]
        self._made = torch.stack([*made, straight, straight + ratio.square() * missed[-2]])
        if not len(self._distance):
            return self._made[0], self._made[-2:]
        nearest = self._distance.argmin(0)
        return self._made[nearest, torch.arange(len(nearest))], self._made[-2:]

    def found(self, u: Tensor) -> None:
        """What the increment came to."""
        self._missed = u - self._made
        distance, size = (torch.linalg.vector_norm(x, dim=-1) for x in (self._missed, u))
        self._distance = torch.maximum(distance, SAME * size)


def solve_quickly(
    problem: ControlledIncrement,
    named: Named,
    start: Tensor,
    plain: Tensor,
    old: Tensor,
    theta: Tensor,
    counts: Counts,
) -> Increment | None:
    """From a start (tests, n), or from the first of those without memory where that leads elsewhere; None if neither leads anywhere.

    counts: what was done is added to them.
    """
    with torch.no_grad():
        found = _newton(problem, named, start, old, theta, counts)
        if found is not None and _near(found.u, start, plain):
            return found
        counts.fallbacks += 1
        return _newton(problem, named, plain[0], old, theta, counts)


def _near(u: Tensor, start: Tensor, plain: Tensor) -> bool:
    """Whether all tests ended nearer to their start than to what one goes by without memory (2, tests, n)."""
    apart = torch.linalg.vector_norm(u - plain, dim=-1).amax(0)
    same = SAME * torch.linalg.vector_norm(u, dim=-1)
    return bool((torch.linalg.vector_norm(u - start, dim=-1) <= torch.maximum(apart, same)).all())


def _newton(
    problem: ControlledIncrement, named: Named, start: Tensor, old: Tensor, theta: Tensor, counts: Counts
) -> Increment | None:
    u, factors, last = start, None, torch.full_like(start[:, 0], torch.inf)
    aim = INCREMENT_NEWTON.tolerance.absolute
    for _ in range(STEPS + 1):
        at = Linearised(problem, named, u, old, theta)
        counts.residuals += 1
        largest = float(at.norm.max())  # NaN where one of them is
        if largest <= aim or (largest <= NEAR * aim and bool((at.norm <= FELL * last).all())):
            counts.factorisations += 1
            return at.solved(u)
        if not largest < torch.inf:
            return None
        # The factors of a step before do once more where they bring the residual as far down as they did.
        if factors is None or not bool((at.norm**2 <= aim * last).all()):
            packed, pivots, info = torch.linalg.lu_factor_ex(at.tangent())
            counts.factorisations += 1
            if bool(info.any()):
                return None
            factors = packed, pivots
        counts.back_substitutions += 1
        u, last = u - torch.linalg.lu_solve(*factors, at.residual.unsqueeze(-1)).squeeze(-1), at.norm
    return None
