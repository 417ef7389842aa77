"""What a model knows of a field beforehand: that its neighbouring values resemble each other, or how far they vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class FieldPrior:
    """whitening (c - mean) has independent entries of variance one, with c the values of a parameter or their logarithms.

    name: the model's parameter, of n values. whitening (count, n), sparse: entries at rows and columns, each (k,).
    """

    name: str
    rows: Tensor
    columns: Tensor
    entries: Tensor
    count: int
    mean: float = 0.0
    logarithmic: bool = False

    @staticmethod
    def of(name: str, whitening: csr_matrix | np.ndarray, mean: float = 0.0, logarithmic: bool = False) -> FieldPrior:
        """From a sparse or a dense matrix (count, n)."""
        from scipy.sparse import coo_matrix  # for those models alone that have fields

        matrix = coo_matrix(whitening)
        rows, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.row, matrix.col))
        return FieldPrior(name, rows, columns, torch.from_numpy(matrix.data), matrix.shape[0], mean, logarithmic)

    def coordinate(self, values: Tensor) -> Tensor:
        """c (n,)."""
        return torch.log(values) if self.logarithmic else values

    def residual(self, values: Tensor) -> Tensor:
        """The whitened field (count,), whose squares are its share of phi; differentiable by any transform of torch.func."""
        parts = self.entries * (self.coordinate(values) - self.mean)[self.columns]
        return torch.zeros(self.count, dtype=torch.float64).index_add(0, self.rows, parts)

    def matrix(self, size: int) -> csr_matrix:
        """The whitening of a field of n = size values."""
        from scipy.sparse import csr_matrix

        return csr_matrix((self.entries.numpy(), (self.rows.numpy(), self.columns.numpy())), (self.count, size))
