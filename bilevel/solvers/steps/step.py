"""How far to go: a step takes a point and a descent and returns the next point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.report import require
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point


@dataclass
class Move:
    """The outcome of one step: the new point, the length taken and which samples found an acceptable one."""

    point: Point
    length: Tensor
    accepted: Tensor


class Step(ABC):
    """A rule for the length of a step; `active` (*batch) marks the samples that still move."""

    first_length: float | None = 1.0
    """Length tried first along a direction of natural scale; None where the rule finds its own."""

    @abstractmethod
    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        """The next point from `point`; samples that are not active stay where they are."""


class LineSearch(Step):
    """A step along the descent's direction."""

    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        direction = descent.direction(evaluations, point)
        slope = evaluations.slope(point, direction)
        return self.search(evaluations, point, direction, slope, active)

    @abstractmethod
    def search(self, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor) -> Move:
        """A length along `direction`, where the merit has derivative `slope` (*batch) at zero."""


def require_backtracking(decrease: float, shrink: float, max_trials: int) -> None:
    """Raise InputError for settings with which no search ends well."""
    require(0 <= decrease < 1, f"decrease is a share of the slope from 0 to below 1, not {decrease}")
    require(0 < shrink < 1, f"shrink lies between 0 and 1, not {shrink}")
    require(max_trials >= 1, f"max_trials must be at least 1, not {max_trials}")


def require_wolfe(decrease: float, curvature: float, max_trials: int) -> None:
    """The same; with a curvature below decrease no length need meet both conditions."""
    require(0 <= decrease < curvature < 1, f"0 <= decrease < curvature < 1 must hold, not {decrease} and {curvature}")
    require(max_trials >= 1, f"max_trials must be at least 1, not {max_trials}")


def along(evaluations: Evaluations, point: Point, direction: Tensor, length: Tensor) -> Point:
    """The point at u + length * direction."""
    return evaluations.point(point.u + length.unsqueeze(-1) * direction)


def select(mask: Tensor, new: Point, old: Point) -> Point:
    """The new point where mask (*batch) holds, else the old one."""
    if mask.dim() == 0:
        return new if bool(mask) else old
    wide = mask.unsqueeze(-1)
    return Point(
        torch.where(wide, new.u, old.u),
        torch.where(mask, new.merit, old.merit),
        torch.where(wide, new.residual, old.residual),
    )


def backtrack(
    evaluations: Evaluations,
    point: Point,
    direction: Tensor,
    length: Tensor,
    active: Tensor,
    sufficient: Callable[[Point, Tensor], Tensor],
    shrink: float,
    max_trials: int,
) -> Move:
    """Shorten `length` sample by sample until `sufficient(trial, length)` holds."""
    length = torch.where(active, length, torch.zeros_like(length))
    best, accepted = point, ~active
    for _ in range(max_trials):
        trial = along(evaluations, point, direction, length)
        passed = ~accepted & trial.finite & sufficient(trial, length)
        best = select(passed, trial, best)
        accepted = accepted | passed
        if bool(accepted.all()):
            break
        length = torch.where(accepted, length, length * shrink)
    return Move(best, length, accepted)


def enough_or_lost_in_noise(
    enough: Tensor, evaluations: Evaluations, trial: Point, point: Point, reference: Tensor
) -> Tensor:
    """True where the decrease is enough, or no more than noise in the merit while the residual falls.

    Without the latter no line search would pass near a minimum, where energies differ by less than their rounding
    (Hager & Zhang 2005, SIAM J. Optim. 16, 170, section 3); the noise is measured only where that is the question.
    """
    change, falls = (trial.merit - reference).abs(), trial.norm < point.norm
    passed = enough | (falls & (change <= 100 * torch.finfo(point.merit.dtype).eps * reference.abs()))
    if evaluations.is_energy and bool((falls & trial.finite & ~passed).any()):
        passed = passed | (falls & (change <= evaluations.noise(point).merit))
    return passed
