"""PARDISO Cholesky, LDL^T and LU behind the one interface, and sparse factors that check themselves.

The symbolic analysis is kept with the pattern and shared by all its factors.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.linalg.direct import pardiso_library
from bilevel.linalg.direct.grounding import Grounding
from bilevel.linalg.direct.layout import Selection, is_sparse_on_cpu, ready, upper_triangle, whole
from bilevel.linalg.direct.pardiso_library import Analysis, MatrixType, NumericFactor
from bilevel.linalg.direct.reused import ReusedFactor, made_for_similar
from bilevel.linalg.direct.sparse_factor import NotPositiveDefinite, SparseFactor
from bilevel.linalg.operator import LinearOperator, Sparse, SparsePattern
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail

REUSED_FROM = 20_000
"""Unknowns from which on an LU factorisation costs as much as 10 (plane meshes) to 30 solves (meshes in space)."""
CHOOSING = threading.Lock()
SMALL_PIVOT = 1e-12
"""Cholesky pivots below this fraction of their diagonal entry call for a check of the condition."""


@dataclass(frozen=True)
class PardisoLDL(LinearSolver):
    """LDL^T of a symmetric matrix with 1x1 and 2x2 pivots; counts the negative eigenvalues."""

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return _can_take(A) and A.structure.indefinite

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        return _sound_factor(ready(A), MatrixType.SYMMETRIC, on_fail)


@dataclass(frozen=True)
class PardisoLU(LinearSolver):
    """LU of any square matrix; in a sequence of large similar ones, LU of an earlier one as preconditioner."""

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return _can_take(A) and not A.structure.symmetric

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        return _sound_factor(ready(A), MatrixType.UNSYMMETRIC, on_fail)

    def reuses(self, A: LinearOperator, earlier: Factor | None) -> bool:
        return A.n >= REUSED_FROM and isinstance(A, Sparse) and made_for_similar(A, earlier)

    def follow(self, A: LinearOperator, earlier: Factor | None, on_fail: OnFail = "raise") -> Factor:
        if earlier is not None and self.reuses(A, earlier):
            return ReusedFactor(ready(A), earlier, lambda matrix: self.factor(matrix, on_fail))
        return self.factor(A, on_fail)


@dataclass(frozen=True)
class PardisoCholesky(LinearSolver):
    """Cholesky of a symmetric matrix.

    otherwise: what takes over where the matrix is not positive definite. With None the factor only says so, and its
    solves raise.
    """

    otherwise: LinearSolver | None = field(default_factory=PardisoLDL)

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return _can_take(A) and A.structure.symmetric and not A.structure.indefinite

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        A = ready(A)
        ground = Grounding(A)
        numeric = _numeric(ground.matrix, MatrixType.POSITIVE_DEFINITE)
        if numeric is None:
            factor = NotPositiveDefinite(A) if self.otherwise is None else self.otherwise.factor(A, on_fail)
            factor.positive_definite = False
            return factor
        factor = PardisoFactor(A, ground, numeric)
        if numeric.smallest_pivot < SMALL_PIVOT:
            factor.check_condition(on_fail)
        return factor


def _can_take(A: LinearOperator) -> bool:
    return is_sparse_on_cpu(A) and pardiso_library.library() is not None


class PardisoFactor(SparseFactor):
    """Solves with a numerical factorisation of the grounded matrix."""

    def __init__(self, A: Sparse, ground: Grounding, numeric: NumericFactor) -> None:
        super().__init__(A, ground)
        self.numeric = numeric
        kind = numeric.analysis.kind
        if kind is not MatrixType.UNSYMMETRIC:
            self.negative_eigenvalues = 0 if kind is MatrixType.POSITIVE_DEFINITE else numeric.negative_eigenvalues
            self.positive_definite = self.negative_eigenvalues == 0

    def _solve_regular(self, rows: Tensor, transposed: bool) -> Tensor:
        return torch.from_numpy(self.numeric.solve(rows.numpy(), transposed)).to(rows)


def _sound_factor(A: Sparse, kind: MatrixType, on_fail: OnFail) -> Factor:
    """Factorise with the pattern's analysis; where that goes badly, scaled and matched for these very values."""
    ground = Grounding(A)
    numeric = _numeric(ground.matrix, kind)
    if numeric is not None and numeric.perturbed_pivots == 0:
        factor = PardisoFactor(A, ground, numeric)
        if bool(factor.probe().sound):
            return factor
    # Scaling and matching by values rescue poor diagonals (saddle points), but tie the analysis to these very values: they
    # are the second choice, as most matrices are served by the analysis that the pattern keeps.
    numeric = _matched(ground.matrix, kind)
    if numeric is None:
        return SparseFactor.refused(A, ground, on_fail)
    factor = PardisoFactor(A, ground, numeric)
    factor.check_condition(on_fail)
    return factor


def _numeric(matrix: Sparse, kind: MatrixType) -> NumericFactor | None:
    """Factorise on the first of the pattern's analyses that has a slot left."""
    stored = _stored(matrix.pattern, kind)
    entries = stored.entries(matrix.values)
    with CHOOSING:  # two threads that share a pattern must not take the same slot, nor make its analysis twice
        analyses: list[Analysis] = matrix.pattern.derive(kind, list)
        for analysis in analyses:
            slot = analysis.take_slot()
            if slot is not None:
                break
        else:
            analysis = Analysis(kind, stored.indptr, stored.indices, entries)
            analyses.append(analysis)
            slot = analysis.take_slot()
    assert slot is not None
    return analysis.factor(entries, slot)


def _matched(matrix: Sparse, kind: MatrixType) -> NumericFactor | None:
    stored = _stored(matrix.pattern, kind)
    entries = stored.entries(matrix.values)
    analysis = Analysis(kind, stored.indptr, stored.indices, entries, matching=True)
    slot = analysis.take_slot()
    assert slot is not None
    return analysis.factor(entries, slot)


def _stored(pattern: SparsePattern, kind: MatrixType) -> Selection:
    return whole(pattern) if kind is MatrixType.UNSYMMETRIC else upper_triangle(pattern)
