"""Cells in which the gradient is the same everywhere: edges, linear triangles and tetrahedra.

Their gradients are numbers (E,) along edges and vectors (E, d) in the plane and in space, slopes (E,) or (E, d, d), so that
edges pay for no tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.matmul import matmul
from physics.discretisation.operator import LocalOperator


def columns_and_volume(operator: LocalOperator) -> tuple[Tensor, Tensor]:
    """What gradients are made of, (E, A, d), and the volumes (E,) of the cells of an operator of gradients.

    Raises InputError for cells whose gradient varies.
    """
    columns, weights = operator.evaluate(None, slice(None))
    if columns.shape[2] > 1 and not torch.allclose(columns, columns[:, :, :1]):
        raise InputError("the gradient varies within cells; edges, linear triangles and tetrahedra are needed")
    return columns[:, :, 0].contiguous(), weights.sum(1)


def gradients(nodal: Tensor, cells: Tensor, columns: Tensor) -> Tensor:
    """The gradients (E,) or (E, d) of a nodal field (nodes,)."""
    if columns.shape[2] > 1:
        return matmul(nodal[cells][:, None, :], columns)[:, 0]
    (first, second), (one, other) = cells.unbind(1), columns[..., 0].unbind(1)
    return nodal[first] * one + nodal[second] * other


def divergence(fluxes: Tensor, cells: Tensor, columns: Tensor, nodes: int) -> Tensor:
    """The transpose of `gradients`, (nodes,), for fluxes (E,) or (E, d)."""
    local = fluxes[:, None] * columns[..., 0] if fluxes.dim() == 1 else matmul(columns, fluxes[:, :, None])
    return fluxes.new_zeros(nodes).index_add(0, cells.reshape(-1), local.reshape(-1))


def element_matrices(slope: Tensor, columns: Tensor) -> Tensor:
    """B^T slope B (E, A, A) of slopes (E,) or (E, d, d)."""
    if slope.dim() == 1:
        return (slope[:, None] * columns[..., 0])[:, :, None] * columns[:, None, :, 0]
    return matmul(matmul(columns, slope), columns.mT)
