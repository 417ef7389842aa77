"""Whether what is left of a residual is a load along the null space, against which no solver finds anything."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.operator import Dense
from bilevel.problem import DENSE_LIMIT
from bilevel.report import Status
from bilevel.solvers.descent import Descent
from bilevel.solvers.evaluations import Evaluations, Point

ASTRAY = (Status.MAX_ITERATIONS, Status.STAGNATED, Status.SINGULAR)
"""How a solve may end that meets such a load."""

SHARE = 0.9
"""Of the residual's norm, that lies in the null space."""

SAME = 1e-6
"""Change of the residual, relative, along a motion as long as the state, up to which it is the same load."""

FLAT = 1e-10
"""Eigenvalues below this times the largest are zero."""


def unbalanced(evaluations: Evaluations, descent: Descent, point: Point) -> Tensor:
    """Which samples (*batch) are left with a residual that lies in the null space, declared or seen in a dense tangent."""
    structure = evaluations.problem.structure
    none = torch.zeros_like(point.finite)
    if structure.null_space is not None:
        null = torch.linalg.qr(structure.null_space.to(point.u))[0]
    elif descent.linearises and structure.symmetric and point.u.shape[-1] <= DENSE_LIMIT:
        tangent = evaluations.tangent(point.u)
        if not isinstance(tangent, Dense) or not bool(tangent.matrix.isfinite().all()):
            return none
        values, vectors = torch.linalg.eigh(tangent.matrix)
        size = values.abs()
        null = vectors * (size <= FLAT * size.amax(-1, keepdim=True)).unsqueeze(-2)
    else:
        return none
    load = (null @ (null.mT @ point.residual.unsqueeze(-1))).squeeze(-1)
    along = torch.linalg.vector_norm(load, dim=-1)
    # A motion without stiffness here may have some further on, as u^4 at 0; a load that nothing balances stays what it is.
    size = torch.linalg.vector_norm(point.u, dim=-1).clamp(min=1.0) / along.clamp(min=torch.finfo(load.dtype).tiny)
    moved = evaluations.point(point.u - size.unsqueeze(-1) * load).residual - point.residual
    stays = torch.linalg.vector_norm(moved, dim=-1) <= SAME * point.norm
    return (along > SHARE * point.norm) & (point.norm > 0) & stays
