"""Linear operators as the problems hand them over: dense batches, a sparse matrix on a fixed pattern, or products only.

Vectors have shape (..., *batch, n): leading dimensions are further right-hand sides, `batch` the independent samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """What is known of a linear operator.

    symmetric: A = A^T. positive_definite: True if proved by the model, None if unknown (a factorisation will tell).
    null_space: orthonormal columns (n, k) with A Z = 0 and A^T Z = 0, or None.
    near_null_space: columns (n, k) of near-null modes (rigid-body modes) for algebraic multigrid, or None.
    """

    symmetric: bool = False
    positive_definite: bool | None = None
    null_space: Tensor | None = None
    near_null_space: Tensor | None = None

    def project(self, b: Tensor) -> Tensor:
        """Remove the null-space component of vectors (..., n)."""
        if self.null_space is None:
            return b
        z = self.null_space.to(b)
        return b - (b @ z) @ z.mT


class LinearOperator(ABC):
    """A square matrix of size n, or a batch of them, known at least by its products."""

    n: int
    batch: tuple[int, ...] = ()
    structure: Structure

    @abstractmethod
    def matmul(self, x: Tensor) -> Tensor:
        """A x for vectors (..., *batch, n)."""

    @abstractmethod
    def matmul_transposed(self, x: Tensor) -> Tensor:
        """A^T x for vectors (..., *batch, n)."""


@dataclass
class Dense(LinearOperator):
    """Dense matrices (*batch, n, n)."""

    matrix: Tensor
    structure: Structure = field(default_factory=Structure)

    def __post_init__(self) -> None:
        self.n = self.matrix.shape[-1]
        self.batch = tuple(self.matrix.shape[:-2])

    def matmul(self, x: Tensor) -> Tensor:
        return (self.matrix @ x.unsqueeze(-1)).squeeze(-1)

    def matmul_transposed(self, x: Tensor) -> Tensor:
        return (self.matrix.mT @ x.unsqueeze(-1)).squeeze(-1)


@dataclass
class MatrixFree(LinearOperator):
    """An operator known by its products only; `diagonal` is an optional Jacobi preconditioner."""

    n: int
    product: Callable[[Tensor], Tensor]
    product_transposed: Callable[[Tensor], Tensor]
    structure: Structure = field(default_factory=Structure)
    batch: tuple[int, ...] = ()
    diagonal: Tensor | None = None

    def matmul(self, x: Tensor) -> Tensor:
        return self._rowwise(self.product, x)

    def matmul_transposed(self, x: Tensor) -> Tensor:
        return self._rowwise(self.product_transposed, x)

    def _rowwise(self, product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        event = x.dim() - len(self.batch) - 1
        if event == 0:
            return product(x)
        flat = x.reshape(-1, *x.shape[event:])
        return torch.stack([product(row) for row in flat]).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class SparsePattern:
    """The fixed positions of a sparse matrix in compressed rows; made once per mesh or graph and shared by all its matrices.

    indptr (n+1,), indices (nnz,): int32, sorted within rows, no duplicates. `cache` keeps symbolic analyses by backend.
    """

    n: int
    indptr: np.ndarray
    indices: np.ndarray
    cache: dict[str, object] = field(default_factory=dict)

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @staticmethod
    def from_pairs(rows: np.ndarray, cols: np.ndarray, n: int) -> tuple[SparsePattern, np.ndarray]:
        """The pattern that holds all pairs (row, col), and the scatter map: position in `values` of each pair."""
        keys = rows.astype(np.int64) * n + cols.astype(np.int64)
        unique, scatter = np.unique(keys, return_inverse=True)
        unique_rows = unique // n
        indptr = np.searchsorted(unique_rows, np.arange(n + 1)).astype(np.int32)
        return SparsePattern(n, indptr, (unique - unique_rows * n).astype(np.int32)), scatter.reshape(-1)


@dataclass
class Sparse(LinearOperator):
    """A sparse matrix: values (nnz,) on a pattern."""

    pattern: SparsePattern
    values: Tensor
    structure: Structure = field(default_factory=Structure)

    def __post_init__(self) -> None:
        self.n = self.pattern.n

    def matmul(self, x: Tensor) -> Tensor:
        return self._apply(self.csr(), x)

    def matmul_transposed(self, x: Tensor) -> Tensor:
        return self._apply(self.csr().T, x)

    def csr(self):  # type: ignore[no-untyped-def]
        """The matrix as scipy.sparse.csr_matrix (shares memory with `values` on the CPU)."""
        import scipy.sparse as sp

        data = self.values.detach().cpu().numpy()
        return sp.csr_matrix((data, self.pattern.indices, self.pattern.indptr), shape=(self.n, self.n))

    def with_structure(self, structure: Structure) -> Sparse:
        return replace(self, structure=structure)

    def _apply(self, matrix, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        columns = x.detach().cpu().reshape(-1, self.n).numpy().T
        return torch.from_numpy(np.ascontiguousarray((matrix @ columns).T)).reshape(x.shape).to(x)
