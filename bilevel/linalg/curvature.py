"""The lowest curvature of a symmetric operator and a direction that has it."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.lanczos import Ritz, lanczos, start_vector
from bilevel.linalg.operator import Dense, LinearOperator, Sparse
from bilevel.linalg.pick import factorise
from bilevel.report import BilevelError, InputError

PRODUCT_STEPS = 80
INVERSE_STEPS = 30


def negative_curvature(A: LinearOperator) -> tuple[Tensor, Tensor]:
    """The lowest eigenvalue (*batch) of a symmetric operator and its unit eigenvector (*batch, n).

    Outside the declared null space. Exact for dense matrices; otherwise the lowest value that Lanczos finds among
    products with A, and for sparse matrices among solves too, which shows negative eigenvalues near zero. The value is
    always the true curvature of the vector, so never below the lowest eigenvalue.
    """
    if not A.structure.symmetric:
        raise InputError("curvature is defined for symmetric operators only")
    with torch.no_grad():
        if isinstance(A, Dense):
            return _dense(A)
        low = _lowest(A, _ritz(A))
        inverse = _inverse_ritz(A) if isinstance(A, Sparse) and A.values.device.type == "cpu" else None
        if inverse is None:
            return low
        return min(low, _lowest(A, inverse), key=lambda pair: float(pair[0]))


def _dense(A: Dense) -> tuple[Tensor, Tensor]:
    matrix = A.matrix.detach()
    z = A.structure.null_space
    if z is not None:  # lift the null space above all curvatures
        z = z.to(matrix)
        size = matrix.abs().sum(-1).amax(-1)[..., None, None]
        matrix = matrix + 2.0 * size * (z @ z.mT)
    values, vectors = torch.linalg.eigh(matrix)
    return values[..., 0], vectors[..., 0]


def _ritz(A: LinearOperator) -> Ritz:
    project = A.structure.project
    start = project(start_vector(A.n, A.batch, A.example()))
    return lanczos(lambda x: project(A.matmul(x)), start, min(PRODUCT_STEPS, A.n))


def _inverse_ritz(A: Sparse) -> Ritz | None:
    """Ritz pairs of the inverse, or None where A is singular."""
    try:
        factor = factorise(A)
    except BilevelError:
        return None
    start = A.structure.project(start_vector(A.n, A.batch, A.example()))
    return lanczos(factor.solve, start, min(INVERSE_STEPS, A.n))


def _lowest(A: LinearOperator, ritz: Ritz) -> tuple[Tensor, Tensor]:
    """The first or last Ritz vector, whichever has the lower curvature, and that curvature."""
    ends = torch.stack([ritz.vectors[..., 0], ritz.vectors[..., -1]])
    ends = ends / torch.linalg.vector_norm(ends, dim=-1, keepdim=True)
    curvature = (ends * A.matmul(ends)).sum(-1)
    last = curvature[1] < curvature[0]
    return torch.where(last, curvature[1], curvature[0]), torch.where(last.unsqueeze(-1), ends[1], ends[0])
