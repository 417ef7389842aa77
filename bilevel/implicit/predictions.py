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

    known: points (p,), states (*batch, n) and derivatives (p, *batch, n). Both predictions start from the state that moves
    least. A derivative T at x + s tells of the second derivative H that T - T(x) = H s; so with this point at x + d
    and d = sum c s, H d is about sum c (T - T(x)).
    """
    moves = [torch.tensordot((at - x).to(tangent), tangent, 1) for x, _, tangent in known]
    nearest = min(range(len(known)), key=lambda i: float(torch.linalg.vector_norm(moves[i])))
    x, state, _ = known[nearest]
    others, away = [(other - x, tangent) for other, _, tangent in known if not torch.equal(other, x)], at - x
    predicted = state + moves[nearest]
    if not others or not bool(away.any()):
        return [predicted], nearest
    steps = torch.stack([step for step, _ in others])
    # The nearer a point, the better a difference of derivatives is a second one.
    weights = torch.linalg.vector_norm(steps, dim=1) ** -FAITHFUL
    weights = weights / weights.max()
    shares = torch.linalg.pinv(steps.mT * weights, rtol=SAME_DIRECTION) @ away * weights
    bend = -float(shares.sum()) * moves[nearest]
    for share, (_, tangent) in zip(shares.tolist(), others):
        if share:
            bend += torch.tensordot((share * away).to(predicted), tangent, 1)
    return [predicted + 0.5 * bend, predicted], nearest
