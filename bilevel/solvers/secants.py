"""What moves show of an energy's curvature, and the BFGS metric made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from bilevel.solvers.evaluations import Point

Pair: TypeAlias = tuple[Tensor, Tensor, Tensor]


def secant_pair(old: Point, new: Point) -> Pair | None:
    """A move s, its change of gradient y and 1 / s.y; None where it shows no positive curvature in any sample."""
    s, y = new.u - old.u, new.residual - old.residual
    curvature = (s * y).sum(-1)
    bent = curvature > 1e-12 * torch.linalg.vector_norm(s, dim=-1) * torch.linalg.vector_norm(y, dim=-1)
    if not bool(bent.any()):
        return None
    # A sample whose pair carries no curvature gets weight zero: the pair then leaves its metric unchanged.
    return s, y, torch.where(bent, 1.0 / torch.where(bent, curvature, 1.0), 0.0)


def two_loop(gradient: Tensor, pairs: list[Pair], metric: Callable[[Tensor], Tensor]) -> Tensor:
    """The two-loop recursion: P applied to `gradient` (*batch, n), where it is `metric` without any pairs."""
    q, weights = gradient, []
    for s, y, rho in reversed(pairs):
        weight = rho * (s * q).sum(-1)
        weights.append(weight)
        q = q - weight.unsqueeze(-1) * y
    q = metric(q)
    for (s, y, rho), weight in zip(pairs, reversed(weights), strict=True):
        q = q + (weight - rho * (y * q).sum(-1)).unsqueeze(-1) * s
    return q
