"""A learned step: whatever proposes a move along any descent's direction, guarded by Armijo's test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from bilevel.report import BilevelError
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.step import Move, Step, enough_or_lost_in_noise

Propose: TypeAlias = Callable[[Point, Tensor, Tensor | None], Tensor]
"""(point, direction (n,), last move (n,) if there was one) -> move (n,), such as a graph network makes."""


@dataclass
class LearnedStep(Step):
    """u + propose(point, direction, last move) if that decreases the merit enough, else the fallback's step.

    One problem at a time, no batches. fallback: the classical step taken along the same direction where the proposal is not
    good enough; with it the solver converges wherever the fallback does. decrease: of Armijo's test, which is on the energy,
    or on half the squared residual of a root problem. safeguard=False takes every proposal that is finite: for measuring
    how often it diverges. Inferences and fallbacks are counted in the solve's report.
    """

    propose: Propose
    fallback: Step = field(default_factory=Armijo)
    decrease: float = 1e-4
    safeguard: bool = True
    _last: Tensor | None = field(default=None, init=False, repr=False)

    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        if point.u.dim() != 1:
            raise BilevelError(f"a learned step moves one problem at a time, got a batch {tuple(point.u.shape[:-1])}")
        if evaluations.goal is None:
            raise BilevelError("an unrolled adjoint cannot repeat learned steps; use the exact adjoint")
        direction = descent.direction(evaluations, point)
        if not bool(torch.isfinite(direction).all()):
            return self._classical(evaluations, descent, point, direction, active)
        evaluations.counts.inferences += 1
        move = self.propose(point, direction, self._last)
        slope = evaluations.slope(point, move)
        if self.safeguard and not bool(slope < 0):
            return self._classical(evaluations, descent, point, direction, active)
        trial = evaluations.point(point.u + move)
        enough = trial.merit <= point.merit + self.decrease * slope
        enough = enough_or_lost_in_noise(enough, evaluations, trial, point, point.merit) | (not self.safeguard)
        if not bool(trial.finite & enough):
            return self._classical(evaluations, descent, point, direction, active)
        self._last = move
        return Move(trial, torch.ones_like(slope), torch.ones_like(active))

    def _classical(
        self, evaluations: Evaluations, descent: Descent, point: Point, direction: Tensor, active: Tensor
    ) -> Move:
        if not self.safeguard:
            return Move(point, torch.zeros_like(point.merit), torch.zeros_like(active))
        evaluations.counts.fallbacks += 1
        move = self.fallback.advance(evaluations, _Along(direction, descent), point, active)
        self._last = move.point.u - point.u
        return move


class _Along(Descent):
    """A direction that is known already, so that the fallback need not make it again."""

    def __init__(self, direction: Tensor, descent: Descent) -> None:
        self._direction = direction
        self.natural_length, self.factor, self.safe = descent.natural_length, descent.factor, descent.safe

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        return self._direction

    def metric(self) -> Metric | None:
        return None
