"""Batches of dense matrices: Cholesky, Bunch-Kaufman LDL^T and LU through torch.linalg, on any device.

A declared null space Z is filled in: A + s Z Z^T has the same solutions orthogonal to Z and is regular.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg.direct.condition import check_null_space, probe
from bilevel.linalg.operator import Dense, LinearOperator, Structure
from bilevel.linalg.solver import NOT_FINITE, Factor, LinearSolver, refuse_singular
from bilevel.report import InputError, OnFail, fail

SMALL_PIVOT = 1e-10
"""Cholesky pivots below this fraction of their diagonal entry call for a check of the condition."""

SMALL, SMALL_LU_PIVOT = 16, 1e-8
"""LU pivots above this fraction of their column's largest entry bound the condition of matrices up to size SMALL."""


@dataclass(frozen=True)
class DenseCholesky(LinearSolver):
    """Cholesky where positive definite, Bunch-Kaufman LDL^T for the samples that are not; symmetric matrices only."""

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return isinstance(A, Dense) and A.structure.symmetric and not A.structure.indefinite

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        return _Cholesky(_as_dense(A), on_fail)


@dataclass(frozen=True)
class DenseLDL(LinearSolver):
    """Bunch-Kaufman LDL^T of symmetric matrices; counts the negative eigenvalues (Sylvester's law of inertia)."""

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return isinstance(A, Dense) and A.structure.indefinite

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        return _LDL(_as_dense(A), on_fail)


@dataclass(frozen=True)
class DenseLU(LinearSolver):
    """LU with partial pivoting, for any square matrices."""

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return isinstance(A, Dense) and not A.structure.symmetric

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        return _LU(_as_dense(A), on_fail)


def _as_dense(A: LinearOperator) -> Dense:
    """A without its history of gradients."""
    if not isinstance(A, Dense):
        raise InputError(f"dense factorisations take a Dense operator, got {type(A).__name__}")
    return Dense(A.matrix.detach(), A.structure)


class _DenseFactor(Factor):
    """Shared by the three: fills the null space in, sets unusable samples aside, checks the condition."""

    A: Dense
    singular: Tensor
    positive_definite: Tensor | None
    negative_eigenvalues: Tensor | None

    def __init__(self, A: Dense, on_fail: OnFail) -> None:
        super().__init__(A)
        check_null_space(A)
        regular = _fill_null_space(A)
        finite = torch.isfinite(regular.sum((-2, -1)))
        if not bool(finite.all()):
            eye = torch.eye(A.n, dtype=regular.dtype, device=regular.device)
            regular = torch.where(finite[..., None, None], regular, eye)
            fail(NOT_FINITE, on_fail)
        self.regular = Dense(regular, A.structure)
        self.singular = ~finite
        self._decompose(self.regular.matrix)
        self._check_condition(on_fail)

    def _decompose(self, matrix: Tensor) -> None:
        raise NotImplementedError

    def _columns(self, columns: Tensor, transposed: bool) -> Tensor:
        """Solve for (*batch, n, m)."""
        raise NotImplementedError

    def _suspicious(self) -> bool:
        return True

    def _check_condition(self, on_fail: OnFail) -> None:
        if self._suspicious():
            seen = probe(self.regular, lambda rows: self._rows(rows, transposed=False))
            self.singular = self.singular | ~seen.sound
            if not bool(seen.sound.all()):
                refuse_singular(float(seen.rcond[~seen.sound].min()), on_fail)

    def _rows(self, rows: Tensor, transposed: bool) -> Tensor:
        return self._columns(rows.movedim(0, -1), transposed).movedim(-1, 0)

    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        x = self._rows(rows, transposed)
        if bool(self.singular.any()):
            x = x.masked_fill(self.singular.unsqueeze(-1), torch.nan)
        return x


class _Cholesky(_DenseFactor):
    def _decompose(self, matrix: Tensor) -> None:
        lower, info = torch.linalg.cholesky_ex(matrix)
        definite = info == 0
        negative = torch.zeros_like(info, dtype=torch.long)
        self.others: _LDL | None = None
        if not bool(definite.all()):
            lower = torch.where(definite[..., None, None], lower, torch.eye(self.A.n).to(lower))
            subset = Dense(matrix[~definite], Structure(symmetric=True))
            self.others = _LDL(subset, "ignore")
            negative = negative.masked_scatter(~definite, self.others.negative_eigenvalues)
            self.singular[~definite] |= self.others.singular
        self.lower, self.definite = lower, definite
        self.positive_definite, self.negative_eigenvalues = definite, negative

    def _suspicious(self) -> bool:
        pivots = self.lower.diagonal(dim1=-2, dim2=-1).square()
        entries = self.regular.matrix.diagonal(dim1=-2, dim2=-1)
        small = (pivots < SMALL_PIVOT * entries).any(-1)
        return bool((small | ~self.definite).any())

    def _columns(self, columns: Tensor, transposed: bool) -> Tensor:
        x = torch.cholesky_solve(columns, self.lower)
        if self.others is not None:
            rest = ~self.definite
            x[rest] = self.others._columns(columns[rest], transposed)
        return x


class _LDL(_DenseFactor):
    negative_eigenvalues: Tensor

    def _decompose(self, matrix: Tensor) -> None:
        self.packed, self.pivots, _ = torch.linalg.ldl_factor_ex(matrix)
        diagonal = self.packed.diagonal(dim1=-2, dim2=-1)
        # A 2x2 block (marked by negative pivots) is always indefinite: one eigenvalue on each side of zero.
        in_block = self.pivots < 0
        self.negative_eigenvalues = ((diagonal < 0) & ~in_block).sum(-1) + in_block.sum(-1) // 2
        self.positive_definite = ((diagonal > 0) & ~in_block).all(-1)

    def _columns(self, columns: Tensor, transposed: bool) -> Tensor:
        return torch.linalg.ldl_solve(self.packed, self.pivots, columns.contiguous())


class _LU(_DenseFactor):
    def _decompose(self, matrix: Tensor) -> None:
        self.packed, self.pivots, _ = torch.linalg.lu_factor_ex(matrix)

    def _suspicious(self) -> bool:
        if self.A.n > SMALL:
            return True
        pivots = self.packed.diagonal(dim1=-2, dim2=-1).abs()
        # Written so that NaN counts as suspicious.
        return not bool((pivots > SMALL_LU_PIVOT * self.regular.matrix.abs().amax(-2)).all())

    def _columns(self, columns: Tensor, transposed: bool) -> Tensor:
        return torch.linalg.lu_solve(self.packed, self.pivots, columns, adjoint=transposed)


def _fill_null_space(A: Dense) -> Tensor:
    z = A.structure.null_space
    if z is None:
        return A.matrix
    z = z.to(A.matrix)
    # A null direction gets the curvature of the stiffest entry: neither the condition nor the definiteness suffers.
    size = A.matrix.abs().amax((-2, -1), keepdim=True)
    return A.matrix + torch.where(size > 0, size, 1.0) * (z @ z.mT)
