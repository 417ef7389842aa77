"""Several split problems side by side as one, so that one factorisation and one pass of a network serve them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, SparsePattern
from bilevel.solvers.cellwise.cell_law import JoinedLaw
from bilevel.solvers.cellwise.split import SplitProblem
from bilevel.solvers.cellwise.unrolled import UnrolledProblem


class Joined(SplitProblem):
    """The disjoint union of problems with sparse matrices; vectors and cells are those of the parts in a row."""

    @staticmethod
    def side_by_side(parts: Sequence[UnrolledProblem]) -> Joined:
        return Joined([part for part in parts if isinstance(part, SplitProblem)])

    def __init__(self, parts: Sequence[SplitProblem]) -> None:
        self.parts = list(parts)
        counts = [part.nodes for part in parts]
        first = np.concatenate([[0], np.cumsum(counts)])
        self.nodes = int(first[-1])
        self.cells = torch.cat([part.cells + int(start) for part, start in zip(parts, first)])
        self._of_cells = [len(part.cells) for part in parts]
        self.law = JoinedLaw([part.law for part in parts], self._of_cells)
        matrices = [part.matrix(part.first_slope()) for part in parts]
        self.n = sum(part.n for part in parts)
        self._of_unknowns = [part.n for part in parts]
        patterns = [matrix.pattern for matrix in matrices if isinstance(matrix, Sparse)]
        self._pattern, self._structure = _block_diagonal(patterns), matrices[0].structure
        self._part_of_cell = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(self._of_cells))

    def gradients(self, u: Tensor) -> Tensor:
        return torch.cat([part.gradients(own) for part, own in zip(self.parts, u.split(self._of_unknowns))])

    def first_slope(self) -> Tensor:
        return torch.cat([part.first_slope() for part in self.parts])

    def matrix(self, slope: Tensor) -> Sparse:
        own = zip(self.parts, slope.split(self._of_cells))
        values = torch.cat([part.matrix(slopes).values for part, slopes in own])  # type: ignore[attr-defined]
        return Sparse(self._pattern, values, self._structure)

    def divergence(self, fluxes: Tensor) -> Tensor:
        return self._cellwise(lambda part, own: part.divergence(own), fluxes)

    def imbalance(self, fluxes: Tensor) -> Tensor:
        return self._cellwise(lambda part, own: part.imbalance(own), fluxes)

    def mean(self, values: Tensor) -> Tensor:
        return (self.total(values) / torch.tensor(self._of_cells))[self._part_of_cell]

    def total(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.parts)).index_add(0, self._part_of_cell, values)

    def _cellwise(self, function: Callable[[SplitProblem, Tensor], Tensor], values: Tensor) -> Tensor:
        return torch.cat([function(part, own) for part, own in zip(self.parts, values.split(self._of_cells))])


def _block_diagonal(patterns: Sequence[SparsePattern]) -> SparsePattern:
    rows = np.cumsum([0, *(pattern.n for pattern in patterns)])
    entries = np.cumsum([0, *(pattern.nnz for pattern in patterns)])
    indptr = [np.zeros(1, dtype=np.int32), *(p.indptr[1:] + start for p, start in zip(patterns, entries))]
    indices = [p.indices + start for p, start in zip(patterns, rows)]
    return SparsePattern(
        int(rows[-1]), np.concatenate(indptr).astype(np.int32), np.concatenate(indices).astype(np.int32)
    )
