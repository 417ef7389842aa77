"""Values of nodal fields at points: which cell a point lies in, found once, and its shape functions there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError

if TYPE_CHECKING:
    from physics.discretisation.mesh import Mesh

CANDIDATES = 40
"""How many of the nearest cells are tried for a point."""


@dataclass(frozen=True, eq=False)
class Interpolation:
    """nodes (P, A) and weights (P, A): field values at P points as weighted sums of nodal values."""

    nodes: Tensor
    weights: Tensor

    def __call__(self, field: Tensor) -> Tensor:
        """The values (P, C) at the points of a nodal field (nodes, C); differentiable."""
        return torch.einsum("pa,pac->pc", self.weights, field[self.nodes])


def locate(mesh: Mesh, points: np.ndarray, tolerance: float = 1e-6) -> Interpolation:
    """Find points (P, dim) in the mesh; `tolerance` is how far outside a cell, in units of its size, they may lie.

    Points a little outside are extrapolated from the nearest cell. Raises InputError for a point further away.
    """
    from scipy.spatial import cKDTree

    x, cells = mesh.coordinates.detach().numpy(), mesh.cells.numpy()
    if points.ndim != 2 or points.shape[1] != mesh.dim:
        raise InputError(f"points must have shape (points, {mesh.dim}), got {points.shape}")
    nearest = cKDTree(x[cells].mean(1)).query(points, k=min(CANDIDATES, len(cells)))[1].reshape(len(points), -1)
    best_cell = nearest[:, 0].copy()
    best_position = np.zeros_like(points)
    best_outside = np.full(len(points), np.inf)
    for candidate in nearest.T:
        open_points = np.flatnonzero(best_outside > 1e-9)
        if not len(open_points):
            break
        position = _invert(mesh, x[cells[candidate[open_points]]], points[open_points])
        outside = _outside(mesh, position)
        better = outside < best_outside[open_points]
        chosen = open_points[better]
        best_cell[chosen] = candidate[chosen]
        best_position[chosen] = position[better]
        best_outside[chosen] = outside[better]
    lost = np.flatnonzero(best_outside > tolerance)
    if len(lost):
        raise InputError(
            f"point {lost[0]} at {points[lost[0]].tolist()} lies outside the mesh ({len(lost)} such points)"
        )
    from physics.discretisation.mesh_operator import reference_shapes

    weights = reference_shapes(mesh.element, best_position.T)[0].T.contiguous()
    return Interpolation(mesh.cells[torch.from_numpy(best_cell)], weights)


def _invert(mesh: Mesh, corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Reference positions (P, dim) of points in cells with nodes (P, A, dim), by Newton's method from the middle."""
    from physics.discretisation.mesh_operator import reference_shapes

    position = np.repeat(mesh.element.refdom.p.mean(1)[None], len(points), axis=0)
    for _ in range(30):
        values, gradients = (shape.numpy() for shape in reference_shapes(mesh.element, position.T))
        error = np.einsum("ap,pad->pd", values, corners) - points
        jacobian = np.einsum("pad,apr->pdr", corners, gradients)
        step = np.linalg.solve(jacobian, error[..., None])[..., 0]
        position = np.clip(position - step, -2.0, 3.0)
        if np.abs(step).max() < 1e-13:
            break
    residual = np.einsum("ap,pad->pd", reference_shapes(mesh.element, position.T)[0].numpy(), corners) - points
    missed = np.linalg.norm(residual, axis=1) > 1e-9 * np.ptp(corners, axis=1).max(1)
    position[missed] = np.inf
    return position


def _outside(mesh: Mesh, position: np.ndarray) -> np.ndarray:
    """How far reference positions (P, dim) lie outside the reference cell; 0 inside."""
    from physics.discretisation.mesh import Shape

    below = np.maximum(-position, 0.0).max(1)
    if mesh.shape in (Shape.QUADRILATERAL, Shape.HEXAHEDRON):
        return np.maximum(below, np.maximum(position - 1.0, 0.0).max(1))
    return np.maximum(below, np.maximum(position.sum(1) - 1.0, 0.0))
