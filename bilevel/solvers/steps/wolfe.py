"""A length that meets the weak Wolfe conditions, by bisection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import LineSearch, Move, along, enough_or_lost_in_noise, require_wolfe, select


@dataclass
class Wolfe(LineSearch):
    """Sufficient decrease and slope(a) >= curvature * slope(0), by doubling and bisection.

    Source: Lewis & Overton 2013, algorithm 2.6; the decrease test falls back on the residual at rounding level.
    """

    decrease: float = 1e-4
    curvature: float = 0.9
    max_trials: int = 60

    def __post_init__(self) -> None:
        require_wolfe(self.decrease, self.curvature, self.max_trials)

    def search(self, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor) -> Move:
        length = torch.where(active, torch.ones_like(slope), torch.zeros_like(slope))
        low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
        best, decreased, accepted = point, torch.zeros_like(active), ~active
        for _ in range(self.max_trials):
            trial = along(evaluations, point, direction, length)
            enough = (trial.merit <= point.merit + self.decrease * length * slope) & (slope < 0)
            down = trial.finite & enough_or_lost_in_noise(enough, evaluations, trial, point, point.merit)
            rounding = down & ~enough
            steep = evaluations.slope(trial, direction) < self.curvature * slope
            passed = ~accepted & down & (~steep | rounding)
            best = select(~accepted & down, trial, best)
            decreased, accepted = decreased | down, accepted | passed
            if bool(accepted.all()):
                break
            low = torch.where(down, length, low)
            high = torch.where(down, high, length)
            middle = torch.where(torch.isinf(high), 2 * length, 0.5 * (low + high))
            length = torch.where(accepted, length, middle)
        return Move(best, length, accepted | decreased)
