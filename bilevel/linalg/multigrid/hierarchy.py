"""Smoothed-aggregation multigrid (Vanek, Mandel and Brezina 1996): pyamg sets the levels up, the cycle is torch.

The smoother is a Chebyshev polynomial in the Jacobi-scaled matrix (Adams, Brezina, Hu and Tuminaro 2003, J. Comput.
Phys. 188, 593): sparse products only, so that one cycle serves many right-hand sides and any device. The levels are
kept in single precision: a preconditioner needs no more, and its products cost what they read from memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, compressed

DEGREE = 2
"""Products per smoothing sweep."""
LOWEST = 0.1
"""The smoother damps eigenvalues above this fraction of the largest."""
COARSEST = 500
"""Size below which a level is solved directly."""

PRECISION = torch.float32
NULL = 1e-12
"""Coarse eigenvalues below this fraction of the largest count as zero."""


@dataclass
class Level:
    """A matrix, the prolongation from the next coarser level and its transpose, and what the smoother needs."""

    matrix: Tensor
    prolongation: Tensor
    restriction: Tensor
    inverse_diagonal: Tensor
    largest: float

    def smooth(self, b: Tensor, x: Tensor | None) -> Tensor:
        """Chebyshev iteration for A x = b, a vector (n,) or columns (n, m), from x (or zero)."""
        upper, lower = 1.05 * self.largest, LOWEST * self.largest
        centre, radius = 0.5 * (upper + lower), 0.5 * (upper - lower)
        residual = b if x is None else b - self.matrix @ x
        scale = self.inverse_diagonal if b.dim() == 1 else self.inverse_diagonal.unsqueeze(-1)
        step = scale * residual / centre
        x = step if x is None else x + step
        ratio = radius / centre
        for _ in range(DEGREE - 1):
            residual = residual - self.matrix @ step
            following = 1.0 / (2.0 * centre / radius - ratio)
            step = following * ratio * step + (2.0 * following / radius) * (scale * residual)
            x, ratio = x + step, following
        return x


@dataclass
class Hierarchy:
    """The levels from fine to coarse, and the inverse of the coarsest matrix.

    definite: False if a coarse matrix proves that the finest is not positive semidefinite. The coarsest inverse is that
    of the absolute matrix (and zero on its null space), so that the cycle can precondition even then.
    """

    levels: list[Level]
    coarsest: Tensor
    definite: bool

    def cycle(self, rows: Tensor) -> Tensor:
        """One symmetric V-cycle for right-hand sides (m, n): an approximate solution, linear in them."""
        # Single precision has a narrow range of exponents: loads in newtons and moduli in pascals would leave it.
        scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        single = (rows / scale).to(self.coarsest.dtype)
        if len(rows) == 1:  # products with a vector are five times faster than with a matrix of one column
            return scale * self._descend(0, single[0]).unsqueeze(0)
        return scale * self._descend(0, single.mT.contiguous()).mT

    def _descend(self, depth: int, b: Tensor) -> Tensor:
        if depth == len(self.levels):
            return self.coarsest @ b
        level = self.levels[depth]
        x = level.smooth(b, None)
        coarse = self._descend(depth + 1, level.restriction @ (b - level.matrix @ x))
        return level.smooth(b, x + level.prolongation @ coarse)


def set_up(A: Sparse) -> Hierarchy:
    """Build the levels for a symmetric A with positive diagonal from its near-null space (by default constants)."""
    modes = A.structure.near_null_space if A.structure.near_null_space is not None else A.structure.null_space
    candidates = np.ones((A.n, 1)) if modes is None else modes.detach().cpu().double().numpy()
    with _fixed_random_numbers():
        built = _aggregate(A, candidates)
    levels = [_level(level, A.values) for level in built[:-1]]
    coarsest = torch.from_numpy(built[-1].A.toarray()).to(A.values)
    # The Galerkin product is symmetric up to rounding only, and eigh reads one triangle.
    values, vectors = torch.linalg.eigh(0.5 * (coarsest + coarsest.mT))
    floor = NULL * values.abs().max()
    inverse = torch.where(values.abs() > floor, 1.0 / values.abs().clamp(min=torch.finfo(values.dtype).tiny), 0.0)
    definite = bool(values[0] >= -floor) and all(bool((level.inverse_diagonal > 0).all()) for level in levels)
    return Hierarchy(levels, ((vectors * inverse) @ vectors.mT).to(PRECISION), definite)


def _aggregate(A: Sparse, candidates: np.ndarray) -> Any:
    from pyamg.aggregation import smoothed_aggregation_solver

    return smoothed_aggregation_solver(
        _in_blocks(A, candidates.shape[1]),
        B=candidates,
        symmetry="symmetric",
        smooth=("jacobi", {"omega": 4.0 / 3.0, "weighting": "diagonal"}),
        presmoother=None,
        postsmoother=None,
        improve_candidates=None,
        max_coarse=COARSEST // candidates.shape[1],  # pyamg counts nodes
        coarse_solver=None,
    ).levels


@contextmanager
def _fixed_random_numbers() -> Iterator[None]:
    """pyamg starts its eigenvalue estimates from NumPy's global generator: make that repeatable, and leave no trace."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _in_blocks(A: Sparse, modes: int) -> Any:
    """The matrix in node blocks where six (three) rigid-body modes and the pattern tell of 3 (2) unknowns a node."""
    matrix = A.csr()
    size = {6: 3, 3: 2}.get(modes, 1)
    if size == 1 or A.n % size:
        return matrix
    counts = np.diff(A.pattern.indptr).reshape(-1, size)
    together = bool((counts == counts[:, :1]).all()) and bool((counts % size == 0).all())
    return matrix.tobsr((size, size)) if together else matrix


def _level(level: Any, like: Tensor) -> Level:
    matrix = level.A.tocsr()
    diagonal = matrix.diagonal()
    inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    return Level(
        _blocks(level.A, like) if _takes_blocks(level.A, like) else _to_torch(matrix, like),
        _to_torch(level.P.tocsr(), like),
        _to_torch(level.R.tocsr(), like),
        torch.from_numpy(inverse).to(like.device, PRECISION),
        _largest(matrix, inverse),
    )


def _largest(matrix: Any, inverse_diagonal: np.ndarray) -> float:
    """The largest eigenvalue of D^-1 A, by 15 power iterations from a fixed start; the smoother adds a margin."""
    x = np.random.default_rng(0).standard_normal(matrix.shape[0])
    size = 1.0
    for _ in range(15):
        x = inverse_diagonal * (matrix @ (x / np.linalg.norm(x)))
        size = float(np.linalg.norm(x))
    return size


def _to_torch(matrix: Any, like: Tensor) -> Tensor:
    indptr, indices, data = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return compressed(indptr, indices, data.to(PRECISION), *matrix.shape).to(like.device)


def _takes_blocks(matrix: Any, like: Tensor) -> bool:
    """Whether products by square blocks are to be had; they read fewer indices."""
    rows, columns = getattr(matrix, "blocksize", (1, 1))
    return rows == columns > 1 and like.device.type == "cpu" and torch.backends.mkl.is_available()


def _blocks(matrix: Any, like: Tensor) -> Tensor:
    indptr, indices, data = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse BSR tensor support is in beta state")
        return torch.sparse_bsr_tensor(indptr, indices, data.to(PRECISION), matrix.shape, check_invariants=False)
