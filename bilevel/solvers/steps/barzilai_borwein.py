"""Spectral step lengths with a nonmonotone safeguard (Barzilai & Borwein 1988; Raydan 1997)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.report import require
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import LineSearch, Move, backtrack, enough_or_lost_in_noise, require_backtracking


@dataclass
class BarzilaiBorwein(LineSearch):
    """Length s.s / s.y of the last move s and residual change y, measured against the worst of the last `memory` merits.

    Source: Barzilai & Borwein 1988, eq. 5; Raydan 1997 (globalisation after Grippo, Lampariello & Lucidi 1986).
    """

    memory: int = 10
    decrease: float = 1e-4
    shrink: float = 0.5
    max_trials: int = 50
    _last: Point | None = field(default=None, init=False, repr=False)
    _merits: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        require_backtracking(self.decrease, self.shrink, self.max_trials)
        require(self.memory >= 1, f"memory must hold at least one merit, not {self.memory}")

    def search(self, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor) -> Move:
        first = self._spectral_length(point, direction)
        self._last = point
        self._merits = [*self._merits, point.merit][-self.memory :]
        worst = torch.stack(self._merits).amax(0)

        def sufficient(trial: Point, length: Tensor) -> Tensor:
            enough = trial.merit <= worst + self.decrease * length * slope
            return enough_or_lost_in_noise(enough & (slope < 0), evaluations, trial, point, point.merit)

        return backtrack(evaluations, point, direction, first, active, sufficient, self.shrink, self.max_trials)

    def _spectral_length(self, point: Point, direction: Tensor) -> Tensor:
        default = 1.0 / torch.linalg.vector_norm(direction, dim=-1).clamp(min=1e-20)
        if self._last is None:
            return default
        moved, change = point.u - self._last.u, point.residual - self._last.residual
        curvature = (moved * change).sum(-1)
        length = (moved * moved).sum(-1) / curvature
        # Along negative curvature there is no natural length: go ten times as far as last time.
        farther = 10 * torch.linalg.vector_norm(moved, dim=-1) * default
        bent = (curvature > 0) & torch.isfinite(length)
        return torch.where(bent, length, torch.where(farther > 0, farther, default))
