"""Matrices given by entries between nodes, as products with fields and condensed to the free unknowns: T^T A T."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bilevel.linalg.operator import SparsePattern

Array = NDArray[np.float64]
Index = NDArray[np.integer]
Places = tuple[Index, Index]
"""Row and column of each entry (k,); several entries at one place add up."""


class NodalMatrix:
    """A sparse matrix of nodes whose values are given entry by entry."""

    def __init__(self, places: Places, nodes: int) -> None:
        self.rows, self.columns = places
        self.pattern, self._place = SparsePattern.from_pairs(self.rows, self.columns, nodes)

    def csr(self, entries: Array) -> sp.csr_matrix:
        values = np.bincount(self._place, entries, self.pattern.nnz)
        return sp.csr_matrix((values, self.pattern.indices, self.pattern.indptr), shape=(self.pattern.n,) * 2)

    def product(self, entries: Array, fields: Array) -> Array:
        """The matrix times fields (..., nodes)."""
        return (self.csr(entries) @ fields.reshape(-1, self.pattern.n).T).T.reshape(fields.shape)

    def outer(self, left: Array, right: Array) -> Array:
        """The derivative (k,) of left . A right in the entries, summed over fields (..., nodes)."""
        total = np.zeros(len(self.rows))
        for one, other in zip(left.reshape(-1, self.pattern.n), right.reshape(-1, self.pattern.n)):
            total += one[self.rows] * other[self.columns]
        return total


class Condensed:
    """Two matrices K and C of nodes as T^T K T and T^T C T on one pattern; extend: T (nodes, n)."""

    def __init__(self, extend: sp.csr_matrix, *matrices: NodalMatrix) -> None:
        parts = [_condense(extend, matrix.rows, matrix.columns) for matrix in matrices]
        rows, columns = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        self.pattern, place = SparsePattern.from_pairs(rows, columns, extend.shape[1])
        ends = np.cumsum([0, *(len(part[0]) for part in parts)])
        self.gather = [
            sp.csr_matrix((weight, (place[start:end], entry)), shape=(self.pattern.nnz, len(matrix.rows)))
            for (_, _, entry, weight), matrix, start, end in zip(parts, matrices, ends, ends[1:])
        ]

    def csr(self, values: Array) -> sp.csr_matrix:
        return sp.csr_matrix((values, self.pattern.indices, self.pattern.indptr), shape=(self.pattern.n,) * 2)


def _condense(extend: sp.csr_matrix, rows: Index, columns: Index) -> tuple[Index, Index, Index, Array]:
    """Rows and columns in T^T A T, which entry of A goes there, and its weight."""
    lengths = np.diff(extend.indptr)
    down, across = lengths[rows], lengths[columns]
    pairs = down * across
    entry = np.repeat(np.arange(len(rows)), pairs)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    first = extend.indptr[rows[entry]] + within // across[entry]
    second = extend.indptr[columns[entry]] + within % across[entry]
    weight = extend.data[first] * extend.data[second]
    return extend.indices[first], extend.indices[second], entry, weight
