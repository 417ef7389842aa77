"""Cholesky of narrow bands, which chains and columns of cells have: LAPACK, without any symbolic analysis."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.linalg.lapack import dpbtrf, dpbtrs
from torch import Tensor

from bilevel.linalg.direct.grounding import Grounding
from bilevel.linalg.direct.layout import is_sparse_on_cpu, ready
from bilevel.linalg.direct.sparse_factor import NotPositiveDefinite, SparseFactor
from bilevel.linalg.direct.superlu import SuperLU
from bilevel.linalg.operator import LinearOperator, Sparse, SparsePattern
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail

WIDEST = 8
"""Diagonals beside the main one up to which a band is narrow."""
SMALL_PIVOT = 1e-12
"""Squared pivots below this fraction of their diagonal entry call for a check of the condition."""


@dataclass(frozen=True)
class BandedCholesky(LinearSolver):
    """Cholesky of a symmetric matrix with few diagonals.

    otherwise: what takes over where the matrix is not positive definite. With None the factor only says so.
    """

    precedence = 1
    otherwise: LinearSolver | None = field(default_factory=SuperLU)

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return (
            is_sparse_on_cpu(A)
            and isinstance(A, Sparse)
            and A.structure.symmetric
            and not A.structure.indefinite
            and band_of(A.pattern).narrow
        )

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        A = ready(A)
        ground = Grounding(A)
        band = band_of(A.pattern).of(ground.matrix.values.double().numpy())
        diagonal = band[0].copy()
        lower, failed = dpbtrf(band, lower=1, overwrite_ab=1)
        if failed:
            factor = NotPositiveDefinite(A) if self.otherwise is None else self.otherwise.factor(A, on_fail)
            factor.positive_definite = False
            return factor
        banded = BandedFactor(A, ground, lower)
        if bool((lower[0] ** 2 < SMALL_PIVOT * diagonal).any()):
            banded.check_condition(on_fail)
        return banded


class BandedFactor(SparseFactor):
    """Solves with the Cholesky factor of a band, stored by diagonals (1 + width, n)."""

    def __init__(self, A: Sparse, ground: Grounding, lower: np.ndarray) -> None:
        super().__init__(A, ground)
        self.lower = lower
        self.negative_eigenvalues, self.positive_definite = 0, True

    def _solve_regular(self, rows: Tensor, transposed: bool) -> Tensor:
        found, _ = dpbtrs(self.lower, rows.double().numpy().T, lower=1)
        return torch.from_numpy(found.T).to(rows)


@dataclass(frozen=True)
class Band:
    """Where the entries of a pattern on and below the diagonal are in LAPACK's storage by diagonals."""

    width: int
    n: int
    source: np.ndarray
    place: np.ndarray

    @property
    def narrow(self) -> bool:
        return self.width <= WIDEST

    @property
    def size(self) -> int:
        """Of its storage."""
        return (1 + self.width) * self.n

    def of(self, values: np.ndarray) -> np.ndarray:
        """The storage (..., 1 + width, n) of values (..., nnz)."""
        stored = np.zeros((*values.shape[:-1], self.size))
        stored[..., self.place] = values[..., self.source]
        return stored.reshape(*values.shape[:-1], self.n, 1 + self.width).swapaxes(
            -1, -2
        )  # LAPACK takes it without a copy


def cholesky_of_bands(band: Band, values: np.ndarray) -> list[np.ndarray] | None:
    """The Cholesky factors of matrices (m, nnz) on one narrow band, as `dpbtrs` takes them; None where one cannot be trusted."""
    if not np.isfinite(values).all():
        return None
    stored = band.of(values)
    factors = []
    for matrix, least in zip(stored, SMALL_PIVOT * stored[:, 0]):
        lower, failed = dpbtrf(matrix, lower=1)
        if failed or (lower[0] ** 2 < least).any():
            return None
        factors.append(lower)
    return factors


def band_of(pattern: SparsePattern) -> Band:
    """The band of a pattern; found once."""
    return pattern.derive("band", lambda: _band_of(pattern))


def _band_of(pattern: SparsePattern) -> Band:
    below = pattern.rows.astype(np.int64) - pattern.indices
    source = np.flatnonzero(below >= 0)
    width = int(below.max(initial=0))
    return Band(width, pattern.n, source, pattern.indices[source].astype(np.int64) * (1 + width) + below[source])
