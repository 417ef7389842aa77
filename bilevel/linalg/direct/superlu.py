"""SuperLU (SciPy) behind the one interface: everywhere available, slow in three dimensions."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.direct.grounding import Grounding
from bilevel.linalg.direct.layout import is_sparse_on_cpu, ready
from bilevel.linalg.direct.sparse_factor import SparseFactor
from bilevel.linalg.operator import SMALL, LinearOperator, Sparse, SparsePattern
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail


@dataclass(frozen=True)
class SuperLU(LinearSolver):
    """LU of any square matrix; symmetric ones are first tried without row exchanges, whose pivots tell the inertia."""

    precedence = -1

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return is_sparse_on_cpu(A)

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        A = ready(A)
        ground = Grounding(A)
        if A.structure.symmetric and (lu := _without_exchanges(ground.matrix)) is not None:
            factor = SuperLUFactor(A, ground, lu)
            factor.learn_inertia()
            if bool(factor.probe().sound):
                return factor
        columns = _columns(ground.matrix.pattern)
        lu = _with_exchanges(ground.matrix, columns)
        if lu is None:
            return SparseFactor.refused(A, ground, on_fail)
        factor = SuperLUFactor(A, ground, lu, columns)
        if (
            A.structure.symmetric
        ):  # elimination without exchanges is stable where A is positive definite, and it was not
            factor.positive_definite = False
        factor.check_condition(on_fail)
        return factor


class SuperLUFactor(SparseFactor):
    """Solves with SciPy's SuperLU object; columns: in which order it has those of A."""

    def __init__(self, A: Sparse, ground: Grounding, lu: Any, columns: _Columns | None = None) -> None:
        super().__init__(A, ground)
        self.lu, self.columns = lu, columns

    def learn_inertia(self) -> None:
        """Count negative pivots: without row exchanges A = L D L^T, and D has the signs of A (Sylvester)."""
        if np.array_equal(self.lu.perm_r, self.lu.perm_c):
            self.negative_eigenvalues = int((self.lu.U.diagonal() < 0).sum())
            self.positive_definite = self.negative_eigenvalues == 0

    def _solve_regular(self, rows: Tensor, transposed: bool) -> Tensor:
        b = rows.double().numpy()
        if len(b) == 1:
            return torch.from_numpy(self._solved(b[0], transposed)).to(rows.dtype).unsqueeze(0)
        return torch.from_numpy(np.ascontiguousarray(self._solved(np.asfortranarray(b.T), transposed).T)).to(rows)

    def _solved(self, b: np.ndarray, transposed: bool) -> np.ndarray:
        """The solutions for columns b (n,) or (n, m)."""
        if self.columns is None:
            return self.lu.solve(b, "T" if transposed else "N")
        if transposed:
            return self.lu.solve(np.asfortranarray(b[self.columns.order]), "T")
        return self.lu.solve(b)[self.columns.place]


@dataclass(frozen=True)
class _Columns:
    """The columns of a pattern in an order that leaves few entries to its LU factors.

    order, place (n,): which column comes there, and where each has gone; source (nnz,): where the entries were, of
    compressed columns with starts indptr and rows indices.
    """

    order: np.ndarray
    place: np.ndarray
    source: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray


def _columns(pattern: SparsePattern) -> _Columns | None:
    """Made once per small pattern: to find an order takes a third of the time there; elsewhere SuperLU finds it each time."""
    return pattern.derive("SuperLU's columns", lambda: _ordered(pattern)) if pattern.nnz <= SMALL else None


def _ordered(pattern: SparsePattern) -> _Columns:
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    # Only the order is wanted, so any regular values will do.
    values = np.where(pattern.rows == pattern.indices, float(pattern.nnz), 1.0)
    place = splu(pattern.csr(values).tocsc()).perm_c
    numbered = csc_matrix(
        (np.arange(pattern.nnz), (pattern.rows, place[pattern.indices])), shape=(pattern.n, pattern.n)
    )
    return _Columns(np.argsort(place), place, numbered.data, numbered.indptr, numbered.indices)


def _without_exchanges(matrix: Sparse) -> Any:
    """SuperLU's factors of a symmetric matrix by pivots on the diagonal, or None at a zero pivot."""
    # The rows of A are handed over as the columns of A^T, which is the same matrix.
    return _factors(
        matrix.csr().T.astype(np.float64),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def _with_exchanges(matrix: Sparse, columns: _Columns | None) -> Any:
    """SuperLU's factors of the matrix, with its columns in order where that is known, or None at a zero pivot."""
    if columns is None:
        return _factors(matrix.csr().tocsc().astype(np.float64))
    ordered = matrix.pattern.derive("SuperLU's matrix", lambda: _empty(matrix.pattern, columns))
    ordered = copy.copy(ordered)
    ordered.data = matrix.values.detach().numpy().astype(np.float64)[columns.source]
    return _factors(ordered, permc_spec="NATURAL")


def _empty(pattern: SparsePattern, columns: _Columns) -> Any:
    from scipy.sparse import csc_matrix

    data = np.zeros(pattern.nnz)
    return csc_matrix((data, columns.indices, columns.indptr), shape=(pattern.n, pattern.n))


def _factors(matrix: Any, **settings: Any) -> Any:
    from scipy.sparse.linalg import splu

    try:
        return splu(matrix, **settings)
    except RuntimeError as error:
        if "singular" in str(error):
            return None
        raise
