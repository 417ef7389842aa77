"""States at a point, from those known at others with their derivatives there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FAITHFUL = 2.0
"""The power of distance by which points far away count less for second derivatives."""
SAME_DIRECTION = 1e-3
"""Directions in which known points spread less than this, relative, say nothing of second derivatives."""


def predictions(at: Tensor, known: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[list[Tensor], int]:
    """States (*batch, n) at a point (p,), best first: to second order where that can be told, to first order; and from which.

    known: points (p,), states (*batch, n) and derivatives (p, *batch, n). Both start from the state that moves least.
    """
    moves = [_moved(at - x, tangent) for x, _, tangent in known]
    nearest = min(range(len(known)), key=lambda i: float(torch.linalg.vector_norm(moves[i])))
    x, state, _ = known[nearest]
    first = state + moves[nearest]
    shares = interpolation(0.5 * (x + at), [point for point, _, _ in known], nearest)
    if shares[nearest] == 1.0:
        return [first], nearest
    # The derivative halfway makes a step of first order one of second order.
    return [state + sum(s * _moved(at - x, known[i][2]) for i, s in shares.items()), first], nearest


def interpolation(at: Tensor, points: Sequence[Tensor], nearest: int) -> dict[int, float]:
    """Shares, by point, in which what is known at points (p,) adds up to what it is about at another one, to first order.

    From the nearest point x to the one at x + d, with d = sum c s by the steps s from x to the others: y(x) + sum c (y(x + s) - y(x)).
    """
    x = points[nearest]
    others, away = [i for i, other in enumerate(points) if not torch.equal(other, x)], at - x
    if not others or not bool(away.any()):
        return {nearest: 1.0}
    steps = torch.stack([points[i] - x for i in others])
    # The nearer a point, the better a difference is a derivative.
    weights = torch.linalg.vector_norm(steps, dim=1) ** -FAITHFUL
    weights = weights / weights.max()
    shares = (torch.linalg.pinv(steps.mT * weights, rtol=SAME_DIRECTION) @ away * weights).tolist()
    return {nearest: 1.0 - sum(shares), **{i: share for i, share in zip(others, shares) if share}}


def _moved(away: Tensor, tangent: Tensor) -> Tensor:
    return torch.tensordot(away.to(tangent), tangent, 1)
