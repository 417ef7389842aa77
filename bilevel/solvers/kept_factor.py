"""Steps by a factorisation that is kept, with updates from what they show of the tangent.

Where a step costs a back-substitution and the tangent a factorisation, many such steps are cheaper than one of Newton's.
Of energies the updates are those of BFGS (Matthies & Strang 1979, Int. J. Numer. Meth. Engng 14, 1613), of residuals
Broyden's good ones (Kelley 1995, Iterative Methods for Linear and Nonlinear Equations, section 7.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from bilevel.linalg.solver import Factor
from bilevel.solvers.evaluations import SAME_ENERGY, Evaluations, Point
from bilevel.solvers.secants import Pair, secant_pair, two_loop
from bilevel.solvers.steps.step import Move, backtrack

HALF = 0.5
"""A step that leaves more than this share of the residual is better followed by a new factorisation."""
DECREASE = 0.3
"""Of what the slope promises, as `Newton` asks of its steps: much less tells of overshooting."""
FAR_BELOW = 1e-4
"""Steps go on to this share of the tolerance, as Newton's last step does: what remained would be noise to whoever compares states."""
ROUGHLY = 1e-3
"""Relative residual of the steps' linear solves, where these are iterative."""
STEPS, TRIALS = 25, 4

Solve: TypeAlias = Callable[[Tensor], Tensor]


def trusted(factor: Factor, energy: bool) -> bool:
    """Whether steps by a factor can lead anywhere: it is not singular, nor known to be indefinite where an energy is minimised."""
    if bool(torch.as_tensor(factor.singular).any()):
        return False
    return not energy or factor.positive_definite is None or bool(torch.as_tensor(factor.positive_definite).all())


def steps_by(factor: Factor, evaluations: Evaluations, start: Point, threshold: Tensor, active: Tensor) -> list[Point]:
    """The points after `start`, of the samples `active` (*batch), as long as each step halves the residual."""
    walked: list[Point] = []
    updates = _BFGS() if evaluations.is_energy else _Broyden()
    point, left = start, active & (start.norm > FAR_BELOW * threshold)
    while bool(left.any()) and len(walked) < STEPS:
        evaluations.counts.back_substitutions += 1
        residual = torch.where(left.unsqueeze(-1), point.residual, 0.0)
        step = updates.step(residual, lambda r: factor.solve_roughly(r, ROUGHLY))
        if not trusted(factor, evaluations.is_energy):  # conjugate gradients met negative curvature on the way
            break
        move = _searched(evaluations, point, step, left)
        if not bool((left & move.accepted).any()):
            break
        after = move.point
        walked.append(after)
        if bool((left & (after.norm > HALF * point.norm)).any()):
            break
        updates.moved(point, after)
        point, left = after, active & (after.norm > FAR_BELOW * threshold)
    return walked


def _searched(evaluations: Evaluations, point: Point, step: Tensor, left: Tensor) -> Move:
    """A step of an energy, shortened until that falls by as much as it promised; of a residual, the full one if it falls."""
    slope = (point.residual * step).sum(-1)

    def leads_on(trial: Point, length: Tensor) -> Tensor:
        if not evaluations.is_energy:
            return trial.norm < point.norm
        change = trial.merit - point.merit
        lost = (change <= SAME_ENERGY * point.merit.abs()) & (trial.norm <= HALF * point.norm)
        return ((change <= DECREASE * length * slope) & (slope < 0)) | lost

    trials = TRIALS if evaluations.is_energy else 1
    return backtrack(evaluations, point, step, torch.ones_like(slope), left, leads_on, 0.5, trials)


class _BFGS:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def step(self, residual: Tensor, solve: Solve) -> Tensor:
        return -two_loop(residual, self.pairs, solve)

    def moved(self, old: Point, new: Point) -> None:
        pair = secant_pair(old, new)
        if pair is not None:
            self.pairs.append(pair)


class _Broyden:
    """Each update says of the tangent what the step after it showed; all steps are full ones."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def step(self, residual: Tensor, solve: Solve) -> Tensor:
        step = -solve(residual)
        for before, after in zip(self.steps, self.steps[1:]):
            step = step + after * _share(before, step)
        if self.steps:
            step = step / (1.0 - _share(self.steps[-1], step))
        self.steps.append(step)
        return step

    def moved(self, old: Point, new: Point) -> None:
        return


def _share(of: Tensor, other: Tensor) -> Tensor:
    """By how much of one vector (*batch, n) another one goes along it (*batch, 1)."""
    size = (of * of).sum(-1, keepdim=True)
    return torch.where(size > 0, (of * other).sum(-1, keepdim=True) / size, 0.0)
