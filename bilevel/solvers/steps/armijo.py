"""Backtracking to sufficient decrease (Armijo 1966)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import LineSearch, Move, backtrack, enough_or_lost_in_noise, require_backtracking


@dataclass
class Armijo(LineSearch):
    """Shrink from a first length until merit(u + a d) <= merit(u) + decrease * a * slope.

    Directions of natural scale (Newton, L-BFGS) start from length 1; others from twice the last accepted length.
    Source: Armijo 1966; Nocedal & Wright 2006, algorithm 3.1.
    """

    decrease: float = 1e-4
    shrink: float = 0.5
    max_trials: int = 50
    _last: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_backtracking(self.decrease, self.shrink, self.max_trials)

    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        direction = descent.direction(evaluations, point)
        slope = evaluations.slope(point, direction)
        if descent.natural_length:
            return self.search(evaluations, point, direction, slope, active)
        first = 1.0 / torch.linalg.vector_norm(direction, dim=-1) if self._last is None else 2 * self._last
        move = self._from(first.clamp(max=1e20), evaluations, point, direction, slope, active)
        self._last = torch.where(move.accepted & active, move.length, first)
        return move

    def search(self, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor) -> Move:
        return self._from(torch.ones_like(slope), evaluations, point, direction, slope, active)

    def _from(
        self, first: Tensor, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor
    ) -> Move:
        def sufficient(trial: Point, length: Tensor) -> Tensor:
            enough = trial.merit <= point.merit + self.decrease * length * slope
            return enough_or_lost_in_noise(enough & (slope < 0), evaluations, trial, point, point.merit)

        return backtrack(evaluations, point, direction, first, active, sufficient, self.shrink, self.max_trials)
