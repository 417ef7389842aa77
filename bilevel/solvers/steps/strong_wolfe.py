"""A length that meets the strong Wolfe conditions, by the secant rule on slopes within a bracket."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import LineSearch, Move, along, enough_or_lost_in_noise, require_wolfe, select

MARGIN = 0.1
"""Secant points are kept this fraction of the bracket away from its ends."""


@dataclass
class StrongWolfe(LineSearch):
    """Sufficient decrease and |slope(a)| <= curvature |slope(0)|; the weak conditions would let conjugacy go.

    Source: Nocedal & Wright 2006, section 3.1 (conditions), algorithm 3.5 (bracketing).
    """

    decrease: float = 1e-4
    curvature: float = 0.01
    max_trials: int = 40

    def __post_init__(self) -> None:
        require_wolfe(self.decrease, self.curvature, self.max_trials)

    def search(self, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor) -> Move:
        length = torch.where(active, torch.ones_like(slope), torch.zeros_like(slope))
        low, high = torch.zeros_like(slope), torch.full_like(slope, torch.inf)
        at_low, at_high = slope, torch.full_like(slope, torch.nan)
        best, decreased, accepted = point, torch.zeros_like(active), ~active
        for _ in range(self.max_trials):
            trial = along(evaluations, point, direction, length)
            here = evaluations.slope(trial, direction)
            enough = (trial.merit <= point.merit + self.decrease * length * slope) & (slope < 0)
            down = trial.finite & enough_or_lost_in_noise(enough, evaluations, trial, point, point.merit)
            rounding = down & ~enough
            passed = ~accepted & down & ((here.abs() <= self.curvature * slope.abs()) | rounding)
            best = select(~accepted & down, trial, best)
            decreased, accepted = decreased | down, accepted | passed
            if bool(accepted.all()):
                break
            farther = down & (here < 0)
            low, at_low = torch.where(farther, length, low), torch.where(farther, here, at_low)
            high, at_high = torch.where(farther, high, length), torch.where(farther, at_high, here)
            length = torch.where(accepted, length, _between(low, at_low, high, at_high))
        return Move(best, length, accepted | decreased)


def _between(low: Tensor, at_low: Tensor, high: Tensor, at_high: Tensor) -> Tensor:
    """Where the secant of the slopes crosses zero, the middle where it does not, twice as far where nothing bounds."""
    share = -at_low / (at_high - at_low)
    share = torch.where((at_high > 0) & torch.isfinite(share), share.clamp(MARGIN, 1.0 - MARGIN), 0.5)
    return torch.where(torch.isinf(high), 2.0 * low, low + share * (high - low))
