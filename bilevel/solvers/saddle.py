"""Telling minima from saddles, and leaving saddles along negative curvature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg import negative_curvature
from bilevel.linalg.operator import LinearOperator
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import along, select

FLAT_TRIALS = 8
"""Lengths that are tried along a flat direction, each half the one before."""

CURVATURE_FLOOR = 1e-10
"""Curvature above -floor * (largest curvature seen) counts as zero: flat directions are not saddles."""


@dataclass
class SaddleMove:
    """Where the samples that stood on a saddle went; `stuck` ones found no lower point."""

    point: Point
    escaped: Tensor
    stuck: Tensor


def leave_saddle(
    evaluations: Evaluations, descent: Descent, point: Point, here: Tensor, notes: list[str]
) -> SaddleMove | None:
    """None if the Hessian is positive (semi)definite in the samples `here`; otherwise a move to a lower energy."""
    tangent = evaluations.tangent(point.u)
    descent.factor = None  # gives its memory back before the next is made
    factor = evaluations.factor(point.u, here)
    if bool(torch.as_tensor(factor.singular).any()):
        notes.append("the Hessian is singular at the solution: the minimum is not unique, gradients need a null space")
    else:
        descent.factor = factor
        definite = factor.detect_negative_curvature()
        if definite is not None and bool((torch.as_tensor(definite).expand(here.shape) | ~here).all()):
            return None
    lowest, direction = negative_curvature(tangent, evaluations.linear, evaluations.counts)
    scale = _largest_curvature(tangent, direction)
    saddle = here & (lowest < -CURVATURE_FLOOR * scale)
    if not bool(saddle.any()):
        return _leave_flat(evaluations, point, direction, here & (lowest <= CURVATURE_FLOOR * scale), notes)
    notes.append("met a saddle point and left it along negative curvature")
    descent.left_saddle(float(lowest[saddle].min()))
    return _descend(evaluations, point, direction, lowest, saddle)


def _leave_flat(
    evaluations: Evaluations, point: Point, flat: Tensor, here: Tensor, notes: list[str]
) -> SaddleMove | None:
    """Where curvature vanishes, higher orders decide: look for lower energy both ways along the flat direction."""
    best, escaped = point, torch.zeros_like(here)
    for halvings in range(FLAT_TRIALS if bool(here.any()) else 0):
        for way in (flat, -flat):
            trial = along(evaluations, point, way, _size(point) * 0.5**halvings)
            # Energies along a flat direction differ by terms of higher order; what is closer than this may be rounding.
            noise = 1e-10 * (point.merit.abs() + trial.merit.abs())
            lower = here & ~escaped & trial.finite & (trial.merit < point.merit - noise)
            best, escaped = select(lower, trial, best), escaped | lower
    if not bool(escaped.any()):
        return None
    notes.append("met a degenerate saddle point and left it along a direction without curvature")
    return SaddleMove(best, escaped, torch.zeros_like(here))


def _size(point: Point) -> Tensor:
    """The size of the state, or 1 at the origin."""
    size = torch.linalg.vector_norm(point.u, dim=-1)
    return torch.where(size > 0, size, torch.ones_like(size))


def _largest_curvature(tangent: LinearOperator, start: Tensor) -> Tensor:
    """A few power iterations: enough for the order of magnitude that the floor needs."""
    # Random beside the start: an eigenvector alone would stay what it is, and show its own curvature as the largest.
    x = torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=start.dtype).to(start.device) + start
    norm = torch.ones(start.shape[:-1], dtype=start.dtype, device=start.device)
    for _ in range(10):
        norm = torch.linalg.vector_norm(x, dim=-1)
        x = tangent.matmul(x / norm.clamp(min=1e-300).unsqueeze(-1))
    return torch.linalg.vector_norm(x, dim=-1)


def _descend(evaluations: Evaluations, point: Point, direction: Tensor, lowest: Tensor, saddle: Tensor) -> SaddleMove:
    """Try lengths down from the size of the state until the energy falls by a share of what the curvature promises."""
    uphill = (point.residual * direction).sum(-1) > 0
    direction = torch.where(uphill.unsqueeze(-1), -direction, direction)
    length = _size(point)
    best, escaped = point, torch.zeros_like(saddle)
    for _ in range(40):
        trial = along(evaluations, point, direction, length)
        promised = 0.25 * lowest * length**2
        lower = saddle & ~escaped & trial.finite & (trial.merit <= point.merit + 0.5 * promised)
        best, escaped = select(lower, trial, best), escaped | lower
        if bool((escaped | ~saddle).all()):
            break
        length = 0.5 * length
    return SaddleMove(best, escaped, saddle & ~escaped)
