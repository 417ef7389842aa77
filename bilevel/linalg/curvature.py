"""The lowest curvature of a symmetric operator and a direction that has it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.krylov.lanczos import Ritz, lanczos, start_vector
from bilevel.linalg.multigrid.amg import AMGCG
from bilevel.linalg.multigrid.hierarchy import set_up
from bilevel.linalg.operator import Dense, LinearOperator, Sparse
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.report import BilevelError, Counts, InputError

PRODUCT_STEPS = 80
INVERSE_STEPS = 30


def negative_curvature(
    A: LinearOperator, linear: LinearSolver | None = None, counts: Counts | None = None
) -> tuple[Tensor, Tensor]:
    """The lowest eigenvalue (*batch) of a symmetric operator and its unit eigenvector (*batch, n).

    Outside the declared null space. Exact for dense matrices; otherwise the lowest value that Lanczos finds among
    products with A, and for sparse matrices among solves (or by LOBPCG where multigrid solves) too, which shows
    negative eigenvalues near zero. The value is always the true curvature of the vector, so never below the lowest
    eigenvalue. linear: what solves with A; picked where None. counts: where its factorisation is counted.
    """
    if not A.structure.symmetric:
        raise InputError("curvature is defined for symmetric operators only")
    with torch.no_grad():
        if isinstance(A, Dense):
            return _dense(A)
        low = _lowest(A, _ritz(A))
        inverse = (
            _inverse_ritz(A, linear or Automatic(), counts or Counts())
            if isinstance(A, Sparse) and A.values.device.type == "cpu"
            else None
        )
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
    start = start_vector(A.n, A.batch, A.example())
    return lanczos(A.matmul, start, min(PRODUCT_STEPS, A.n), A.structure.project)


def _inverse_ritz(A: Sparse, linear: LinearSolver, counts: Counts) -> Ritz | None:
    """Ritz pairs of the inverse; by LOBPCG where multigrid is what solves; None where A is singular."""
    method = linear.resolve(A)
    if isinstance(method, AMGCG):
        return _multigrid_ritz(A)
    counts.factorisations += 1
    try:
        factor = method.factor(A)
    except BilevelError:
        return None
    start = start_vector(A.n, A.batch, A.example())
    return lanczos(factor.solve, start, min(INVERSE_STEPS, A.n), A.structure.project)


def _multigrid_ritz(A: Sparse) -> Ritz:
    """The lowest pair by LOBPCG (Knyazev 2001, SIAM J. Sci. Comput. 23, 517) with a V-cycle as preconditioner."""
    from scipy.sparse.linalg import LinearOperator as Apply
    from scipy.sparse.linalg import lobpcg

    levels = set_up(A)

    def cycle(columns: np.ndarray) -> np.ndarray:
        return levels.cycle(torch.from_numpy(np.ascontiguousarray(columns.reshape(A.n, -1).T))).mT.numpy()

    z = A.structure.null_space
    start = A.structure.project(torch.stack([start_vector(A.n, (), A.example()), A.values.new_ones(A.n)])).mT.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # how far it got is told by the curvature itself
        values, vectors = lobpcg(
            A.csr(),
            start,
            M=Apply((A.n, A.n), matvec=cycle, matmat=cycle, dtype=np.float64),
            Y=None if z is None else z.detach().numpy(),
            largest=False,
            maxiter=INVERSE_STEPS,
        )
    return Ritz(torch.from_numpy(values), torch.from_numpy(np.ascontiguousarray(vectors)))


def _lowest(A: LinearOperator, ritz: Ritz) -> tuple[Tensor, Tensor]:
    """The first or last Ritz vector, whichever has the lower curvature, and that curvature."""
    ends = A.structure.project(torch.stack([ritz.vectors[..., 0], ritz.vectors[..., -1]]))
    ends = ends / torch.linalg.vector_norm(ends, dim=-1, keepdim=True)
    curvature = (ends * A.matmul(ends)).sum(-1)
    last = curvature[1] < curvature[0]
    return torch.where(last, curvature[1], curvature[0]), torch.where(last.unsqueeze(-1), ends[1], ends[0])
