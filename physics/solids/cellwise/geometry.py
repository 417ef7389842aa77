"""What the linear systems of solids need of a mesh, made once: integrals of products of gradients, and who touches whom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.solvers.cellwise.problem import Incidence
from physics.discretisation import Mesh
from physics.discretisation.matmul import matmul
from physics.discretisation.operator import LocalOperator


@dataclass(frozen=True, eq=False)
class Geometry:
    """B (E, A, Q, d), w (E, Q), the cells' volumes (E,), w / volume (E, Q), B^T w B (E, A, A), and crossed gradients.

    crossed: B_a x B_b of the pairs of corners a < b, integrated over a cell in the plane (E, P, 1), times w at each
    point in space (E, P, 3 Q).
    """

    matrix: Tensor
    weights: Tensor
    volume: Tensor
    share: Tensor
    laplace: Tensor
    crossed: Tensor
    incidence: Incidence

    @staticmethod
    def of(mesh: Mesh, operator: LocalOperator) -> Geometry:
        matrix, weights = operator.evaluate(None, slice(None))
        volume = weights.sum(-1)
        laplace = torch.einsum("eaqm,eq,ebqm->eab", matrix, weights, matrix)
        incidence = _incidence(mesh, volume)
        return Geometry(
            matrix, weights, volume, weights / volume[:, None], laplace, _crossed(matrix, weights), incidence
        )

    @property
    def dim(self) -> int:
        return self.matrix.shape[-1]

    def turned(self, about: Tensor) -> dict[tuple[int, int], Tensor]:
        """The second derivative of the integral of det F at F (E, Q, d, d): planes (E, A, A) of components i < k.

        It is the sign of (i, k, m) times F_m . (B_a x B_b), F_m the remaining row, which the plane lacks.
        """
        if self.dim == 2:
            return {(0, 1): self._antisymmetric(self.crossed[..., 0])}
        rows = matmul(self.crossed, about.transpose(-1, -2).flatten(1, 2)).unbind(-1)
        signed = {(0, 1): rows[2], (0, 2): -rows[1], (1, 2): rows[0]}
        return {pair: self._antisymmetric(plane) for pair, plane in signed.items()}

    def _antisymmetric(self, entries: Tensor) -> Tensor:
        """Matrices (E, A, A) from their entries (E, P) above the diagonal."""
        corners = self.matrix.shape[1]
        first, second = torch.triu_indices(corners, corners, 1)
        full = entries.new_zeros((len(entries), corners, corners))
        full[:, first, second], full[:, second, first] = entries, -entries
        return full


def _crossed(matrix: Tensor, weights: Tensor) -> Tensor:
    first, second = torch.triu_indices(matrix.shape[1], matrix.shape[1], 1)
    a, b = matrix[:, first], matrix[:, second]
    if matrix.shape[-1] == 2:
        return ((a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]) * weights[:, None]).sum(-1, keepdim=True)
    return (torch.linalg.cross(a, b) * weights[:, None, :, None]).flatten(2)


def _incidence(mesh: Mesh, volume: Tensor) -> Incidence:
    """Cells and their nodes, with each corner's place in the cell in units of its size."""
    count, nodes = mesh.cells.shape
    corners = mesh.coordinates[mesh.cells]
    place = (corners - corners.mean(1, keepdim=True)) / (volume ** (1.0 / mesh.dim))[:, None, None]
    pairs = torch.stack((torch.arange(count).repeat_interleave(nodes), mesh.cells.reshape(-1)))
    return Incidence(count, len(mesh.coordinates), pairs, place.reshape(-1, mesh.dim))
