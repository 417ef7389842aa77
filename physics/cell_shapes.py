"""B and w of all cells at rest: kept as they are, or, for many affine cells, made on demand.

Shape functions on a large mesh take more memory than its matrix. The Jacobian of an affine cell (a simplex, a
parallelogram, a parallelepiped) is the same at all its points, so that its B is a constant plus a linear function of the
inverse Jacobian: one product for many cells, which takes a tenth of the time of an assembly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

AFFINE = 1e-12
"""Jacobians that differ within a cell by less than this fraction differ by the rounding of the coordinates only."""

KEPT_UP_TO = 128 * 2**20
"""Bytes of B and w up to which they are kept in any case."""


class CellShapes(ABC):
    """B (e, A, Q, m) and w (e, Q) of some cells."""

    @abstractmethod
    def __getitem__(self, rows: slice) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, eq=False)
class StoredShapes(CellShapes):
    """matrix B (E, A, Q, m) and weights w (E, Q) of all cells."""

    matrix: Tensor
    weights: Tensor

    def __getitem__(self, rows: slice) -> tuple[Tensor, Tensor]:
        return self.matrix[rows], self.weights[rows]


@dataclass(frozen=True, eq=False)
class AffineShapes(CellShapes):
    """B = constant + linear . inverse, w = measure times the weights of the reference cell.

    inverse (E, dim^2): the inverse Jacobians, None where no gradients are wanted. measure (E,): the Jacobians'
    determinants, positive. linear (dim^2, A, Q, m), constant (A, Q, m), quadrature (Q,).
    """

    inverse: Tensor | None
    measure: Tensor
    linear: Tensor
    constant: Tensor
    quadrature: Tensor

    @classmethod
    def of(
        cls,
        inverse: Tensor,
        measure: Tensor,
        gradients: Tensor | None,
        values: Tensor | None,
        quadrature: Tensor,
    ) -> AffineShapes:
        """From inverse Jacobians (E, dim, dim) and the reference gradients (A, Q, dim) and values (A, Q) that are wanted."""
        dim = inverse.shape[-1]
        parts = []
        if gradients is not None:
            moved = torch.einsum("aqr,ij->rjaqi", gradients, torch.eye(dim, dtype=gradients.dtype))
            parts.append((moved.flatten(0, 1), torch.zeros_like(gradients)))
        if values is not None:
            column = values.unsqueeze(-1)
            parts.append((column.new_zeros(dim * dim, *column.shape), column))
        linear, constant = (torch.cat(columns, -1) for columns in zip(*parts))
        return cls(None if gradients is None else inverse.flatten(1), measure, linear, constant, quadrature)

    def __getitem__(self, rows: slice) -> tuple[Tensor, Tensor]:
        weights = self.measure[rows].unsqueeze(1) * self.quadrature
        count = len(weights)
        if self.inverse is None:
            return self.constant.expand(count, *self.constant.shape), weights
        matrix = torch.addmm(self.constant.reshape(-1), self.inverse[rows], self.linear.flatten(1))
        return matrix.reshape(count, *self.constant.shape), weights
