"""The motion of a body's supports, extended into the body by geometry alone.

Each component by itself, where the squares of its gradient are least, fails a body whose end turns: cells between the ends
are crushed. So what the supports turn by is extended first, and then the displacements whose gradients are nearest to those
rotations (Sorkine & Alexa 2007, as-rigid-as-possible surface modelling, eqs. (8) and (9), with all cells' rotations known).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bilevel.linalg import Sparse, factorise
from bilevel.problem import Params
from physics.discretisation.operator import local_force
from physics.local.energy import LocalEnergy
from physics.local.pieces import Piece, pieces
from physics.solids.cellwise.matrices import Matrices
from physics.solids.cellwise.plane_matrices import PlaneMatrices
from physics.solids.cellwise.space_matrices import SpaceMatrices

FLAT = 1e-6
"""Nodes that span less than this fraction of their extent in a direction lie in a plane or on a line across it."""


class Extension:
    """Laplace's operator on a body's displacements (nodes, d), with its supports; one factorisation serves all fields.

    Raises what factorisations raise.
    """

    def __init__(self, body: LocalEnergy, params: Params) -> None:
        self.body, self.material, self.dim = body, body.terms[0], body.constraints.shape[1]
        self.coordinates = (params or {}).get("coordinates")
        self.fields = body.fields(self.material, params)
        self.cells = self.material.operator.cells
        self.matrices: Matrices = PlaneMatrices() if self.dim == 2 else SpaceMatrices()
        scatter = body.scatter
        sums = scatter.zeros(torch.zeros((), dtype=torch.float64, device=self.cells.device))
        self._products: list[tuple[Piece, Tensor]] = []
        for piece in self._pieces():
            gradients = piece.matrix[..., : self.dim]
            products = torch.einsum("eaqi,ebqi,eq->eab", gradients, gradients, piece.weights)
            planes = products.new_zeros(len(scatter.planes), *products.shape)
            for number, (i, k) in enumerate(scatter.planes):
                if i == k:
                    planes[number] = products
            scatter.add(sums, planes, 0, piece.rows)
            self._products.append((piece, products))
        self.factor = factorise(Sparse(scatter.pattern, scatter.finish(sums), body.structure))

    def harmonic(self, held: Tensor) -> Tensor:
        """The unknowns (n,) that extend a field (nodes, d) which is zero at free nodes."""
        return -self.factor.solve(self.body.constraints.reduce(self._divergence(held)))

    def rigid(self, held: Tensor, positions: Tensor) -> Tensor:
        """Of displacements (nodes, d), those with the gradients nearest to rotations that extend those of the supports.

        positions (nodes, d): of the nodes at rest.
        """
        turns = self._turns(held, positions)
        if not bool(turns.any()):
            return self.harmonic(held)
        turned = turns.reshape(-1).index_add(0, self.body.constraints.free, self.harmonic(turns)).reshape(turns.shape)
        middle = turned[self.cells].mean(1)
        rotation = self.matrices.rotation(middle if self.dim == 3 else middle.mean(1, keepdim=True))
        wanted = rotation - torch.eye(self.dim, dtype=rotation.dtype, device=rotation.device)
        force = self._divergence(held)
        for piece, _ in self._products:
            gradient = wanted[piece.rows][:, None] * piece.weights[..., None, None]
            forces = local_force(gradient, piece.matrix[..., : self.dim])
            force.index_add_(0, self.cells[piece.rows].reshape(-1), forces.flatten(0, 1), alpha=-1.0)
        return -self.factor.solve(self.body.constraints.reduce(force))

    def _pieces(self) -> Iterator[Piece]:
        zero = torch.zeros(self.body.constraints.shape, dtype=torch.float64, device=self.cells.device)
        return pieces(self.material, zero, self.fields, self.coordinates)

    def _divergence(self, field: Tensor) -> Tensor:
        force = torch.zeros_like(field)
        for piece, products in self._products:
            cells = self.cells[piece.rows]
            force.index_add_(0, cells.reshape(-1), (products @ field[cells]).flatten(0, 1))
        return force

    def _turns(self, held: Tensor, positions: Tensor) -> Tensor:
        """Angles or rotation vectors (nodes, d) of supports; zero elsewhere, and where too few nodes tell a rotation."""
        turns = torch.zeros_like(held)
        for nodes in self._supports():
            at = positions[nodes]
            at, to = at - at.mean(0), held[nodes] + positions[nodes]
            u, sizes, v = torch.linalg.svd(at.mT @ (to - to.mean(0)))
            if bool(sizes[self.dim - 2] <= FLAT * at.square().sum()):
                continue
            u[:, -1] *= torch.linalg.det(u) * torch.linalg.det(v)  # a rotation, no reflection (Kabsch 1976)
            turns[nodes] = self.matrices.turn_of((u @ v).mT)
        return turns

    def _supports(self) -> list[Tensor]:
        """The nodes that are wholly held, in groups that share cells."""
        import scipy.sparse as sp
        from scipy.sparse.csgraph import connected_components

        nodes = self.body.constraints.shape[0]
        moves = torch.from_numpy(self.body.constraints.matrix.getnnz(axis=1)).reshape(nodes, -1)
        held = (moves == 0).all(1)
        corners = self.cells.cpu()
        count, width = corners.shape
        pairs = sp.csr_matrix(
            (
                held[corners.reshape(-1)].double().numpy(),
                corners.reshape(-1).numpy(),
                range(0, count * width + 1, width),
            ),
            shape=(count, nodes),
        )
        label = torch.from_numpy(connected_components(pairs.T @ pairs, directed=False)[1])
        groups = label[held].unique()
        return [((label == group) & held).nonzero()[:, 0] for group in groups]
