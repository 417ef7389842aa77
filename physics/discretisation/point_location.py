"""Values of nodal fields at points: which cell a point lies in, found once, and its shape functions there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex
from physics.discretisation.reference_cells import reference_shapes

CURVED = 0.5
"""A curved cell may bulge out of the box around its nodes by this fraction of the box."""


@dataclass(frozen=True, eq=False)
class Interpolation:
    """nodes (P, A), weights (P, A), gradients (P, A, dim): values at P points, and slopes, as weighted sums of nodal values."""

    nodes: Tensor
    weights: Tensor
    gradients: Tensor

    def __call__(self, field: Tensor) -> Tensor:
        """The values (P, C) at the points of a nodal field (nodes, C); differentiable."""
        return torch.einsum("pa,pac->pc", self.weights, field[self.nodes])


class OutsideMesh(InputError):
    """Points that no cell holds; lost: their numbers."""

    def __init__(self, points: np.ndarray, lost: np.ndarray) -> None:
        at = points[lost[0]].tolist()
        super().__init__(f"point {lost[0]} at {at} lies outside the mesh ({len(lost)} such points)")
        self.lost = lost


def locate(mesh: CellComplex, points: np.ndarray, tolerance: float = 1e-6) -> Interpolation:
    """Find points (P, dim) in the mesh; `tolerance` is how far outside a cell, in units of its size, they may lie.

    Points a little outside are extrapolated from the cell that they are least outside of. Raises OutsideMesh for points
    further away, InputError for one that is NaN.
    """
    cells = mesh.cells.numpy()
    if points.ndim != 2 or points.shape[1] != mesh.dim:
        raise InputError(f"points must have shape (points, {mesh.dim}), got {points.shape}")
    unknown = np.flatnonzero(~np.isfinite(points).all(1))
    if len(unknown):
        raise InputError(f"point {unknown[0]} at {points[unknown[0]].tolist()} is NaN or infinite")
    best_cell = np.zeros(len(points), dtype=np.int64)
    best_position = np.zeros_like(points)
    best_outside = np.full(len(points), np.inf)
    for rows, candidates in _pairs(mesh, points, tolerance):
        position = reference_positions(mesh, mesh.positions[cells[candidates]], points[rows])
        # Of several cells that a point was tried in, the one that it is least outside of.
        distance = outside(mesh, position)
        order = np.lexsort((distance, rows))
        first = order[np.unique(rows[order], return_index=True)[1]]
        better = first[distance[first] < best_outside[rows[first]]]
        best_cell[rows[better]], best_position[rows[better]] = candidates[better], position[better]
        best_outside[rows[better]] = distance[better]
    lost = np.flatnonzero(best_outside > tolerance)
    if len(lost):
        raise OutsideMesh(points, lost)
    weights, slopes = reference_shapes(mesh.element, best_position.T)
    nodes = mesh.cells[torch.from_numpy(best_cell)]
    jacobian = torch.einsum("pad,apr->pdr", torch.from_numpy(mesh.positions)[nodes], slopes)
    gradients = torch.linalg.solve(jacobian.mT, slopes.permute(1, 2, 0)).mT
    return Interpolation(nodes, weights.T.contiguous(), gradients.contiguous())


def _pairs(mesh: CellComplex, points: np.ndarray, tolerance: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Points and cells whose boxes they lie in, cells of about one size at a time.

    The cells nearest by their centres would miss long cells beside short ones: a graded mesh has both.
    """
    around = mesh.positions[mesh.cells.numpy()]
    low, high = around.min(1), around.max(1)
    half = (0.5 + tolerance + (CURVED if mesh.degree > 1 else 0.0)) * (high - low)
    middle = 0.5 * (low + high)
    reach = half.max(1)
    size = np.floor(np.log2(reach / reach.max())).astype(int)
    seek = cKDTree(points)
    for level in np.unique(size):
        cells = np.flatnonzero(size == level)
        found = seek.query_ball_point(middle[cells], reach[cells], p=np.inf)
        rows = np.concatenate([np.asarray(hits, dtype=np.int64) for hits in found])
        candidates = np.repeat(cells, [len(hits) for hits in found])
        inside = (np.abs(points[rows] - middle[candidates]) <= half[candidates] * (1 + 1e-12)).all(1)
        if inside.any():
            yield rows[inside], candidates[inside]


def reference_positions(mesh: CellComplex, corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Reference positions (P, dim) of points in cells with nodes (P, A, dim), by Newton's method from the middle."""
    position = np.repeat(mesh.element.refdom.p.mean(1)[None], len(points), axis=0)
    for _ in range(30):
        values, gradients = (shape.numpy() for shape in reference_shapes(mesh.element, position.T))
        error = np.einsum("ap,pad->pd", values, corners) - points
        jacobian = np.einsum("pad,apr->pdr", corners, gradients)
        jacobian[np.linalg.det(jacobian) == 0.0] = np.eye(mesh.dim)  # where a trial position folds the cell
        step = np.linalg.solve(jacobian, error[..., None])[..., 0]
        position = np.clip(position - step, -2.0, 3.0)
        if np.abs(step).max() < 1e-13:
            break
    residual = np.einsum("ap,pad->pd", reference_shapes(mesh.element, position.T)[0].numpy(), corners) - points
    missed = np.linalg.norm(residual, axis=1) > 1e-9 * np.ptp(corners, axis=1).max(1)
    position[missed] = np.inf
    return position


def outside(mesh: CellComplex, position: np.ndarray) -> np.ndarray:
    """How far reference positions (P, dim) lie outside the reference cell; 0 inside."""
    below = np.maximum(-position, 0.0).max(1)
    if mesh.shape.tensor_product:
        return np.maximum(below, np.maximum(position - 1.0, 0.0).max(1))
    return np.maximum(below, np.maximum(position.sum(1) - 1.0, 0.0))
