"""The operator B and the weights w of E = sum over q of w_q psi(B_q u): what meshes and graphs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from physics.discretisation.matmul import matmul

Rows: TypeAlias = slice


class LocalOperator(ABC):
    """Cells of A nodes with Q points each, where a nodal field u (nodes, C) is seen through B.

    cells (E, A): the nodes of each cell. points: Q. width: m, the number of columns of B, so that the local state is
    B u of shape (E, Q, C, m): row c holds the m columns (gradient, value ...) of component c.
    """

    cells: Tensor

    @property
    @abstractmethod
    def points(self) -> int:
        """Points per cell, Q."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of B, m."""

    @abstractmethod
    def evaluate(self, coordinates: Tensor | None, rows: Rows) -> tuple[Tensor, Tensor]:
        """B (e, A, Q, m) and w (e, Q) of some cells, for given node coordinates, or None for the operator's own."""

    def apply(self, field: Tensor, coordinates: Tensor | None = None) -> Tensor:
        """B u (E, Q, C, m) for a nodal field u (nodes, C)."""
        matrix, _ = self.evaluate(coordinates, slice(None))
        return local_state(field[self.cells], matrix)

    def weights(self, coordinates: Tensor | None = None) -> Tensor:
        """w (E, Q)."""
        return self.evaluate(coordinates, slice(None))[1]


def local_state(local: Tensor, matrix: Tensor) -> Tensor:
    """B u (e, Q, C, m) from cell values (e, A, C) and B (e, A, Q, m).

    In memory each entry (c, m) is contiguous over cells and points: what materials do with entries then runs through
    the cache in order.
    """
    count, nodes, points, width = matrix.shape
    state = matmul(local.mT, matrix.reshape(count, nodes, points * width))
    state = state.reshape(count, -1, points, width).permute(1, 3, 0, 2).contiguous()
    return state.permute(2, 3, 0, 1)


def local_force(weighted: Tensor, matrix: Tensor) -> Tensor:
    """B^T s (e, A, C) from B (e, A, Q, m) and weighted stresses s (e, Q, C, m)."""
    count, nodes, points, width = matrix.shape
    columns = weighted.transpose(2, 3).reshape(count, points * width, -1)
    return matmul(matrix.reshape(count, nodes, points * width), columns)


def local_matrix(weighted: Tensor, matrix: Tensor, planes: Sequence[tuple[int, int]]) -> Tensor:
    """B^T A B as planes (P, e, A, A) of pairs (i, k) of components.

    From B (e, A, Q, m) and weighted tangents (e, Q, C, m, C, m).
    """
    count, nodes, points, width = matrix.shape
    chosen = torch.stack([weighted[:, :, i, :, k, :] for i, k in planes], 2)
    columns = matrix.permute(0, 2, 3, 1).reshape(count * points, width, nodes)
    right = matmul(chosen.reshape(count * points, len(planes) * width, width), columns)
    right = right.reshape(count, points, len(planes), width, nodes)
    left = matrix.reshape(count, nodes, points * width)
    return torch.stack([matmul(left, right[:, :, p].flatten(1, 2)) for p in range(len(planes))])


@dataclass(frozen=True, eq=False)
class FixedOperator(LocalOperator):
    """B (E, A, Q, m) and w (E, Q) given outright: graph edges, lumped nodes, springs; it ignores coordinates."""

    cells: Tensor
    matrix: Tensor
    weight: Tensor

    @property
    def points(self) -> int:
        return self.matrix.shape[2]

    @property
    def width(self) -> int:
        return self.matrix.shape[3]

    def evaluate(self, coordinates: Tensor | None, rows: Rows) -> tuple[Tensor, Tensor]:
        return self.matrix[rows], self.weight[rows]


def nodal_operator(nodes: Tensor, weights: Tensor | None = None) -> FixedOperator:
    """The values at nodes (K,) themselves, as cells of one node and one point; weights (K,), default 1."""
    count = len(nodes)
    weights = torch.ones(count, dtype=torch.float64) if weights is None else weights
    return FixedOperator(nodes[:, None], torch.ones((count, 1, 1, 1), dtype=weights.dtype), weights[:, None])
