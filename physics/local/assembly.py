"""Where the entries of element matrices go: one sparse pattern and one scatter map, made once per problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.linalg.operator import SparsePattern
from physics.discretisation.constraints import ConstraintSet


class Scatter:
    """The pattern of T^T K T, and sums of element matrices into its values.

    groups: the cells (E, A) of each group. symmetric: element matrices come as the planes (i, k), i <= k, of components
    only, (P, e, A, A); the others are their mirror images. They are summed by pairs of nodes, and go to their places in
    the pattern once, at the end.
    """

    def __init__(self, groups: Sequence[Tensor], constraints: ConstraintSet, symmetric: bool = True) -> None:
        nodes, components = constraints.shape
        pairs = [_pairs(cells.cpu().numpy(), nodes) for cells in groups]
        unique, inverse = np.unique(np.concatenate([np.empty(0, np.int64), *pairs]), return_inverse=True)
        self.planes = component_pairs(components, symmetric)
        self._pairs = len(unique)
        self._size = len(self.planes) * len(unique)
        device = constraints.free.device
        self._maps = [
            torch.from_numpy(part.astype(np.int32).reshape(cells.shape[0], cells.shape[1] ** 2)).to(device)
            for part, cells in zip(np.split(inverse, np.cumsum([len(p) for p in pairs])[:-1]), groups)
        ]
        origin = _origins(unique, nodes, components, self.planes)
        self._source: Tensor | None = None
        self._reduce: sp.csr_matrix | None = None
        self.pattern, place, entry, factor = _placed(unique, constraints)
        if factor is None:
            source = np.full(self.pattern.nnz, self._size, dtype=np.int32)  # what no cell adds to is zero
            source[place] = origin[entry]
            self._source = torch.from_numpy(source).to(device)
        else:
            shape = (self.pattern.nnz, self._size + 1)
            self._reduce = sp.csr_matrix((factor, (place, origin[entry])), shape=shape)

    def zeros(self, like: Tensor) -> Tensor:
        """Sums to add to."""
        return like.new_zeros(self._size + 1)

    def add(self, sums: Tensor, planes: Tensor, group: int = 0, rows: slice = slice(None)) -> None:
        """Add the element matrices (P, e, A, A) of some cells of a group."""
        places = self._maps[group][rows].reshape(-1)
        for number, plane in enumerate(planes):
            start = number * self._pairs
            sums[start : start + self._pairs].index_add_(0, places, plane.reshape(-1))

    def finish(self, sums: Tensor) -> Tensor:
        """The values (nnz,) of the pattern, once all element matrices were added."""
        if self._source is not None:
            return sums.index_select(0, self._source)
        return torch.from_numpy(self._reduce @ sums.cpu().numpy()).to(sums.device)


def component_pairs(components: int, symmetric: bool = True) -> list[tuple[int, int]]:
    """The planes of an element matrix: pairs (i, k) of components, with i <= k where it is symmetric."""
    return [(i, k) for i in range(components) for k in range(i if symmetric else 0, components)]


def _origins(unique: np.ndarray, nodes: int, components: int, planes: list[tuple[int, int]]) -> np.ndarray:
    """Where the sum of each entry of `_entries` is: in its own plane, or in that of its mirror image."""
    first, second = np.divmod(unique, nodes)
    mirrored = np.searchsorted(unique, second * nodes + first)
    itself = np.arange(len(unique))
    origin = np.empty((len(unique), components, components), dtype=np.int64)
    for i in range(components):
        for k in range(components):
            own = (i, k) in planes
            plane = planes.index((i, k) if own else (k, i))
            origin[:, i, k] = plane * len(unique) + (itself if own else mirrored)
    return origin.ravel()


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


Placed = tuple[SparsePattern, np.ndarray, np.ndarray, "np.ndarray | None"]


def _placed(unique: np.ndarray, constraints: ConstraintSet) -> Placed:
    """The pattern of T^T K T; and for each contribution to it the place in its values, the entry of K, the factor.

    The factors are None where each value is one entry of K, as it is without ties.
    """
    if constraints.selects and constraints.matrix.nnz == constraints.n:
        return _picked(unique, constraints)
    matrix = constraints.matrix
    rows, columns = _entries(unique, *constraints.shape)
    lengths = np.diff(matrix.indptr)
    per_column = lengths[columns]
    many = lengths[rows] * per_column
    entry = np.repeat(np.arange(len(rows)), many)
    within = np.arange(len(entry)) - np.repeat(np.cumsum(many) - many, many)
    i, j = np.divmod(within, per_column[entry])
    left, right = matrix.indptr[rows[entry]] + i, matrix.indptr[columns[entry]] + j
    pattern, place = _with_diagonal(matrix.indices[left], matrix.indices[right], constraints.n)
    return pattern, place, entry, matrix.data[left] * matrix.data[right]


def _picked(unique: np.ndarray, constraints: ConstraintSet) -> Placed:
    """The rows and columns of the free degrees of freedom, picked out of the matrix that holds the entries' numbers."""
    nodes, components = constraints.shape
    first, second = np.divmod(unique, nodes)
    numbers = np.arange(1, len(unique) * components**2 + 1).reshape(-1, components, components)
    blocks = (numbers, second, np.searchsorted(first, np.arange(nodes + 1)))
    free = constraints.free.cpu().numpy()
    matrix = sp.bsr_matrix(blocks, shape=(nodes * components, nodes * components)).tocsr()[free][:, free]
    matrix.sort_indices()
    entry = matrix.data - 1
    pattern = SparsePattern(len(free), matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
    completed, moved = pattern.with_diagonal()
    return completed, np.arange(len(entry)) if moved is None else moved.numpy(), entry, None
