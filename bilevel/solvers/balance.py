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
    along = torch.linalg.vector_norm(null.mT @ point.residual.unsqueeze(-1), dim=(-2, -1))
    return (along > SHARE * point.norm) & (point.norm > 0)
