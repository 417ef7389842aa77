"""Linear triangles and tetrahedra, whose gradient is the same everywhere in a cell: gradients, divergence, matrices."""

from __future__ import annotations

from torch import Tensor

from physics.discretisation.matmul import matmul
from physics.discretisation.operator import LocalOperator


def columns_and_volume(operator: LocalOperator) -> tuple[Tensor, Tensor]:
    """What gradients are made of, (E, A, dim), and the volumes (E,) of the cells of an operator of gradients."""
    columns, weights = operator.evaluate(None, slice(None))
    return columns[:, :, 0].contiguous(), weights.sum(1)


def gradients(nodal: Tensor, cells: Tensor, columns: Tensor) -> Tensor:
    """The gradients (E, dim) of a nodal field (nodes,)."""
    return matmul(nodal[cells][:, None, :], columns)[:, 0]


def divergence(fluxes: Tensor, cells: Tensor, columns: Tensor, nodes: int) -> Tensor:
    """The transpose of `gradients`, (nodes,), for fluxes (E, dim)."""
    local = matmul(columns, fluxes[:, :, None])
    return fluxes.new_zeros(nodes).index_add(0, cells.reshape(-1), local.reshape(-1))


def element_matrices(slope: Tensor, columns: Tensor) -> Tensor:
    """B^T slope B (E, A, A) of slopes (E, dim, dim)."""
    return matmul(matmul(columns, slope), columns.mT)
