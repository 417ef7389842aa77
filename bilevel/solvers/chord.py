"""Newton's method near a solution, with one factorisation for all steps (Kelley 1995, section 5.4.1: the chord method)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg.solver import Factor
from bilevel.solvers.evaluations import Evaluations, Point, Tolerance
from bilevel.solvers.steps.step import select

CONTRACTION = 0.1
"""A step that leaves more than this share of the residual is better followed by a new factorisation."""
FAR_BELOW = 1e-4
"""Where steps cost a back-substitution each, they go on to this share of the tolerance, as Newton's last step does."""
ROUGHLY = 1e-3
"""Relative residual of the steps' linear solves, where these are iterative."""
STEPS = 12


@dataclass(frozen=True)
class Chord:
    """Where the steps ended, and the factorisation at their start.

    converged: whether the residual met its threshold (*batch). minimum: whether the tangent is known to be positive
    definite, or the problem has no energy.
    """

    end: Point
    threshold: Tensor
    factor: Factor
    steps: int
    converged: bool
    minimum: bool


def chord(evaluations: Evaluations, start: Point, tolerance: Tolerance) -> Chord | None:
    """Steps from `start` by the tangent there; None where it is not near a solution that they could lead to."""
    tangent = evaluations.tangent(start.u)
    scale = evaluations.scale(start)
    if bool((scale <= start.norm).any()):  # the terms of the residual do not even begin to cancel
        return None
    threshold = tolerance.threshold(scale)
    evaluations.counts.factorisations += 1
    factor = evaluations.linear.factor(tangent, on_fail="ignore")
    if bool(torch.as_tensor(factor.singular).any()) or (evaluations.is_energy and _known(factor, False)):
        return None
    point, steps = start, 0
    active = point.norm > FAR_BELOW * threshold
    while bool(active.any()) and steps < STEPS:
        evaluations.counts.back_substitutions += 1
        moved = evaluations.point(point.u - factor.solve_roughly(point.residual, ROUGHLY))
        share = torch.where(active, moved.norm / point.norm, 0.0)
        slow = active & ~(moved.finite & (share <= CONTRACTION))
        point = select(active & moved.finite & (moved.norm < point.norm), moved, point)
        steps += 1
        if bool(slow.any()):
            break
        active = point.norm > FAR_BELOW * threshold
    minimum = not evaluations.is_energy or evaluations.problem.structure.positive_definite or _known(factor, True)
    return Chord(point, threshold, factor, steps, bool((point.norm <= threshold).all()), minimum)


def _known(factor: Factor, definite: bool) -> bool:
    """Whether a factor is known to be positive definite in all samples; or not to be in some."""
    if factor.positive_definite is None:
        return False
    known = torch.as_tensor(factor.positive_definite)
    return bool(known.all()) if definite else not bool(known.all())
