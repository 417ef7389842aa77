"""Linear operators as the problems hand them over: dense batches, a sparse matrix on a fixed pattern, or products only.

Vectors have shape (..., *batch, n): leading dimensions are further right-hand sides, `batch` the independent samples.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from bilevel.torch_internals import is_transformed

Derived = TypeVar("Derived")


@dataclass(frozen=True)
class Structure:
    """What is known of a linear operator.

    symmetric: A = A^T. positive_definite: True if proved by the model, None if unknown (a factorisation will tell).
    null_space: orthonormal columns (n, k) with A Z = 0 and A^T Z = 0, or None; (*batch, n, k) where samples have their own
        (a column of zeros where one has fewer).
    near_null_space: columns (n, k) of near-null modes (rigid-body modes) for algebraic multigrid, or None.
    """

    symmetric: bool = False
    positive_definite: bool | None = None
    null_space: Tensor | None = None
    near_null_space: Tensor | None = None

    @property
    def indefinite(self) -> bool:
        """Whether the model says that A is symmetric and not positive definite."""
        return self.symmetric and self.positive_definite is False

    def project(self, b: Tensor) -> Tensor:
        """Remove the null-space component of vectors (..., n)."""
        if self.null_space is None:
            return b
        z = self.null_space.to(b)
        if z.dim() > 2:
            return b - (z @ (z.mT @ b.unsqueeze(-1))).squeeze(-1)
        return b - (b @ z) @ z.mT

    def shifted(self) -> Structure:
        """What remains known when a multiple of the identity is added."""
        return replace(self, positive_definite=None, null_space=None)


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

    def absolute(self, x: Tensor, transposed: bool = False) -> Tensor:
        """|A| |x| or |A^T| |x|, entry by entry: times the rounding unit, the error with which the product can be known.

        |A x| where A has no entries.
        """
        return (self.matmul_transposed(x) if transposed else self.matmul(x)).abs()

    @abstractmethod
    def shifted(self, shift: float) -> LinearOperator:
        """A + shift I, of which neither definiteness nor null space is known."""

    @abstractmethod
    def diagonal_entries(self) -> Tensor | None:
        """The diagonal (*batch, n), or None where the operator does not know it."""

    @abstractmethod
    def example(self) -> Tensor:
        """An empty tensor with the operator's precision and device."""


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

    def absolute(self, x: Tensor, transposed: bool = False) -> Tensor:
        sizes = self.matrix.abs()
        return Dense(sizes.mT if transposed else sizes).matmul(x.abs())

    def shifted(self, shift: float) -> Dense:
        eye = torch.eye(self.n, dtype=self.matrix.dtype, device=self.matrix.device)
        return Dense(self.matrix + shift * eye, self.structure.shifted())

    def diagonal_entries(self) -> Tensor:
        return self.matrix.detach().diagonal(dim1=-2, dim2=-1)

    def example(self) -> Tensor:
        return self.matrix.new_empty(0)


@dataclass
class MatrixFree(LinearOperator):
    """An operator known by its products only; `diagonal` is an optional Jacobi preconditioner."""

    n: int
    product: Callable[[Tensor], Tensor]
    product_transposed: Callable[[Tensor], Tensor]
    structure: Structure = field(default_factory=Structure)
    batch: tuple[int, ...] = ()
    diagonal: Tensor | None = None
    dtype: torch.dtype = torch.float64
    device: torch.device | str | None = None

    def matmul(self, x: Tensor) -> Tensor:
        return self._rowwise(self.product, x)

    def matmul_transposed(self, x: Tensor) -> Tensor:
        return self._rowwise(self.product_transposed, x)

    def shifted(self, shift: float) -> MatrixFree:
        return replace(
            self,
            product=lambda x: self.product(x) + shift * x,
            product_transposed=lambda x: self.product_transposed(x) + shift * x,
            structure=self.structure.shifted(),
            diagonal=None if self.diagonal is None else self.diagonal + shift,
        )

    def diagonal_entries(self) -> Tensor | None:
        return self.diagonal

    def example(self) -> Tensor:
        return torch.empty(0, dtype=self.dtype, device=self.device)

    def _rowwise(self, product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        event = x.dim() - len(self.batch) - 1
        if event == 0:
            return product(x)
        flat = x.reshape(-1, *x.shape[event:])
        return torch.stack([product(row) for row in flat]).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class SparsePattern:
    """The fixed positions of a sparse matrix in compressed rows; made once per mesh and shared by all its matrices.

    indptr (n+1,), indices (nnz,): int32, sorted within rows, no duplicates. `cache` keeps what is derived from the
    pattern (maps, symbolic analyses) by whom it belongs to.
    """

    n: int
    indptr: np.ndarray
    indices: np.ndarray
    cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    stays_on_host: ClassVar[bool] = True

    def __reduce__(self) -> tuple[Any, ...]:
        # Factorisations live in this process alone: copies and pickles start with an empty cache.
        return SparsePattern, (self.n, self.indptr, self.indices)

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @property
    def rows(self) -> np.ndarray:
        """The row of each entry (nnz,)."""
        return np.repeat(np.arange(self.n, dtype=np.int32), np.diff(self.indptr))

    @staticmethod
    def from_pairs(rows: np.ndarray, cols: np.ndarray, n: int) -> tuple[SparsePattern, np.ndarray]:
        """The pattern that holds all pairs (row, col), and the scatter map: position in `values` of each pair."""
        keys = rows.astype(np.int64) * n + cols.astype(np.int64)
        unique, scatter = np.unique(keys, return_inverse=True)
        unique_rows = unique // n
        indptr = np.searchsorted(unique_rows, np.arange(n + 1)).astype(np.int32)
        return SparsePattern(n, indptr, (unique - unique_rows * n).astype(np.int32)), scatter.reshape(-1)

    def with_diagonal(self) -> tuple[SparsePattern, Tensor | None]:
        """The pattern with all diagonal entries, and where the old entries went; itself and None if none is missing."""
        return self.derive("with diagonal", self._complete)

    def diagonal_positions(self) -> Tensor:
        """Where the diagonal entries (n,) are in `values`; all must be there."""
        return self.derive("diagonal", lambda: torch.from_numpy(np.flatnonzero(self.rows == self.indices)))

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """indptr and indices as tensors on a device."""
        return torch.from_numpy(self.indptr).to(device), torch.from_numpy(self.indices).to(device)

    def csr(self, values: np.ndarray):  # type: ignore[no-untyped-def]
        """Values (nnz,) on the pattern as scipy.sparse.csr_matrix."""
        # SciPy looks at all indices when it makes a matrix, so that is done once; a copy of it takes the values unseen.
        matrix = copy.copy(self.derive("csr", self._empty))
        matrix.data = values
        return matrix

    def _empty(self):  # type: ignore[no-untyped-def]
        import scipy.sparse as sp

        return sp.csr_matrix((np.zeros(self.nnz), self.indices, self.indptr), shape=(self.n, self.n))

    def _complete(self) -> tuple[SparsePattern, Tensor | None]:
        if int((self.rows == self.indices).sum()) == self.n:
            return self, None
        unknowns = np.arange(self.n, dtype=np.int32)
        rows, columns = np.concatenate([self.rows, unknowns]), np.concatenate([self.indices, unknowns])
        completed, place = SparsePattern.from_pairs(rows, columns, self.n)
        return completed, torch.from_numpy(place[: self.nnz])

    def derive(self, key: Hashable, make: Callable[[], Derived]) -> Derived:
        """What `make` gives, made once per pattern."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def accumulate(self, scatter: Tensor, entries: Tensor) -> Tensor:
        """The values (nnz,) that entries of any shape sum to, placed by the scatter map of `from_pairs`."""
        return entries.new_zeros(self.nnz).index_add(0, scatter.reshape(-1), entries.reshape(-1))


_FAST = torch.backends.mkl.is_available()
"""Whether torch multiplies sparse matrices on the CPU, with all threads; else SciPy does."""
SMALL = 10_000
"""Entries up to which a product by SciPy has ended before one by torch has begun."""


@dataclass
class Sparse(LinearOperator):
    """A sparse matrix: values (nnz,) on a pattern."""

    pattern: SparsePattern
    values: Tensor
    structure: Structure = field(default_factory=Structure)

    def __post_init__(self) -> None:
        self.n = self.pattern.n

    def matmul(self, x: Tensor) -> Tensor:
        return self._apply(x, transposed=False)

    def matmul_transposed(self, x: Tensor) -> Tensor:
        return self._apply(x, transposed=True)

    def csr(self):  # type: ignore[no-untyped-def]
        """The matrix as scipy.sparse.csr_matrix (shares memory with `values` on the CPU)."""
        return self.pattern.csr(self.values.detach().cpu().numpy())

    def with_structure(self, structure: Structure) -> Sparse:
        return replace(self, structure=structure)

    def with_diagonal(self) -> Sparse:
        """The same matrix with every diagonal entry stored, zero or not."""
        pattern, place = self.pattern.with_diagonal()
        if place is None:
            return self
        values = self.values.new_zeros(pattern.nnz).index_copy(0, place.to(self.values.device), self.values)
        return Sparse(pattern, values, self.structure)

    def absolute(self, x: Tensor, transposed: bool = False) -> Tensor:
        return Sparse(self.pattern, self.values.abs(), self.structure)._apply(x.abs(), transposed)

    def shifted(self, shift: float) -> Sparse:
        stored = self.with_diagonal()
        diagonal = stored.pattern.diagonal_positions().to(self.values.device)
        values = stored.values.index_add(0, diagonal, torch.full_like(stored.values[:1], shift).expand(self.n))
        return Sparse(stored.pattern, values, self.structure.shifted())

    def diagonal_entries(self) -> Tensor:
        stored = self.with_diagonal()
        return stored.values.detach()[stored.pattern.diagonal_positions().to(self.values.device)]

    def example(self) -> Tensor:
        return self.values.new_empty(0)

    def _apply(self, x: Tensor, transposed: bool) -> Tensor:
        transposed = transposed and not self.structure.symmetric
        small = self.pattern.nnz <= SMALL and self.values.device.type == "cpu" and not is_transformed(x)
        if small and x.dim() == 1:  # most of all, and each call of torch costs as much as the product
            matrix = self.csr().T if transposed else self.csr()
            return torch.from_numpy(matrix @ x.detach().numpy()).to(x.dtype)
        rows = x.detach().reshape(-1, self.n)
        # The CPU is slow with transposes.
        fast = self.values.device.type != "cpu" or (_FAST and not transposed and not small)
        if len(rows) == 1 and fast:
            return (self.to_torch(transposed) @ rows[0].to(self.values.dtype)).to(x).reshape(x.shape)
        if fast:
            return (self.to_torch(transposed) @ rows.to(self.values.dtype).mT).mT.to(x).reshape(x.shape)
        matrix = self.csr().T if transposed else self.csr()
        if len(rows) == 1:
            return torch.from_numpy(matrix @ rows[0].numpy()).reshape(x.shape).to(x)
        columns = rows.numpy().T
        return torch.from_numpy(np.ascontiguousarray((matrix @ columns).T)).reshape(x.shape).to(x)

    def to_torch(self, transposed: bool = False) -> Tensor:
        """The matrix, or its transpose, as a compressed sparse tensor where `values` are."""
        device = self.values.device
        indptr, indices = self.pattern.derive(("indices", device), lambda: self.pattern.tensors(device))
        return compressed(indptr, indices, self.values.detach(), self.n, self.n, transposed)


def compressed(
    indptr: Tensor, indices: Tensor, values: Tensor, rows: int, columns: int, transposed: bool = False
) -> Tensor:
    """A sparse tensor (rows, columns) from compressed rows, or the transpose of one from (columns, rows)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CS[RC] tensor support is in beta state")
        make = torch.sparse_csc_tensor if transposed else torch.sparse_csr_tensor
        return make(indptr, indices, values, (rows, columns), check_invariants=False)
