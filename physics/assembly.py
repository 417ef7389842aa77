"""Where the entries of element matrices go: one sparse pattern and one scatter map, made once per problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.linalg.operator import SparsePattern
from physics.constraints import ConstraintSet


class Scatter:
    """The pattern of T^T K T and, for each group of cells, the position in its values of each element-matrix entry.

    Entries that constraints remove go to one spare position behind the values. Element matrices come in the order
    (cell, node a, component of a, component of b, node b), as `local_matrix` makes them.
    """

    def __init__(self, groups: Sequence[Tensor], constraints: ConstraintSet) -> None:
        nodes, components = constraints.shape
        pairs = [_pairs(cells.numpy(), nodes) for cells in groups]
        unique, inverse = np.unique(np.concatenate([np.empty(0, np.int64), *pairs]), return_inverse=True)
        rows, columns = _entries(unique, nodes, components)
        self._reduce: sp.csr_matrix | None = None
        if constraints.selects:
            self.pattern, positions = _selected(rows, columns, constraints)
        else:
            self.pattern, self._reduce = _combined(rows, columns, constraints)
            positions = np.arange(rows.size)
        positions = positions.reshape(-1, components, components)
        self._spare = self._reduce.shape[1] if self._reduce is not None else self.pattern.nnz
        self.maps = []
        start = 0
        for cells in groups:
            count, width = cells.shape
            here = inverse[start : start + count * width * width]
            start += len(here)
            entry = positions[here].reshape(count, width, width, components, components)
            entry = entry.transpose(0, 1, 3, 4, 2).reshape(count, -1)
            self.maps.append(torch.from_numpy(np.ascontiguousarray(entry, dtype=np.int32)))

    def zeros(self, like: Tensor) -> Tensor:
        """Values to add into: those of the pattern and the spare one."""
        return like.new_zeros(self._spare + 1)

    def finish(self, values: Tensor) -> Tensor:
        """The values (nnz,) of the pattern, once all element matrices were added."""
        values = values[: self._spare]
        if self._reduce is None:
            return values
        return torch.from_numpy(self._reduce @ values.numpy())


def _pairs(cells: np.ndarray, nodes: int) -> np.ndarray:
    return (cells[:, :, None].astype(np.int64) * nodes + cells[:, None, :]).ravel()


def _entries(pairs: np.ndarray, nodes: int, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Full rows and columns, each (pairs * components * components,), of unique pairs of nodes."""
    first, second = np.divmod(pairs, nodes)
    c = np.arange(components)
    shape = (len(pairs), components, components)
    rows = np.broadcast_to(first[:, None, None] * components + c[:, None], shape)
    columns = np.broadcast_to(second[:, None, None] * components + c, shape)
    return rows.ravel(), columns.ravel()


def _with_diagonal(rows: np.ndarray, columns: np.ndarray, n: int) -> tuple[SparsePattern, np.ndarray]:
    """The pattern of the pairs and the whole diagonal, which factorisations want; the scatter map of the pairs."""
    diagonal = np.arange(n)
    pattern, scatter = SparsePattern.from_pairs(
        np.concatenate((rows, diagonal)), np.concatenate((columns, diagonal)), n
    )
    return pattern, scatter[: len(rows)]


def _selected(rows: np.ndarray, columns: np.ndarray, constraints: ConstraintSet) -> tuple[SparsePattern, np.ndarray]:
    matrix = constraints.matrix
    number = np.full(matrix.shape[0], -1, dtype=np.int64)
    number[np.diff(matrix.indptr) == 1] = matrix.indices
    row, column = number[rows], number[columns]
    kept = (row >= 0) & (column >= 0)
    pattern, scatter = _with_diagonal(row[kept], column[kept], constraints.n)
    positions = np.full(len(rows), pattern.nnz, dtype=np.int64)
    positions[kept] = scatter
    return pattern, positions


def _combined(rows: np.ndarray, columns: np.ndarray, constraints: ConstraintSet) -> tuple[SparsePattern, sp.csr_matrix]:
    """The pattern of T^T K T, and the matrix that maps the values of K to its values."""
    matrix = constraints.matrix
    lengths = np.diff(matrix.indptr)
    per_row, per_column = lengths[rows], lengths[columns]
    entry = np.repeat(np.arange(len(rows)), per_row * per_column)
    within = np.arange(len(entry)) - np.repeat(
        np.cumsum(per_row * per_column) - per_row * per_column, per_row * per_column
    )
    i, j = np.divmod(within, per_column[entry])
    left = matrix.indptr[rows[entry]] + i
    right = matrix.indptr[columns[entry]] + j
    pattern, scatter = _with_diagonal(matrix.indices[left], matrix.indices[right], constraints.n)
    factors = matrix.data[left] * matrix.data[right]
    return pattern, sp.csr_matrix((factors, (scatter, entry)), shape=(pattern.nnz, len(rows)))
