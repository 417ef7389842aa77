"""The reference cells: shapes, their Lagrange and serendipity elements, and how files order their nodes."""

from __future__ import annotations

from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Shape(Enum):
    """The shapes of cells; the value is the name of scikit-fem's reference domain."""

    TRIANGLE = "Triangular"
    QUADRILATERAL = "Quadrilateral"
    TETRAHEDRON = "Tetrahedral"
    HEXAHEDRON = "Hexahedral"

    @property
    def tensor_product(self) -> bool:
        """Whether the polynomials are products of those along the axes."""
        return self in (Shape.QUADRILATERAL, Shape.HEXAHEDRON)


CORNERS: dict[Shape, list[tuple[int, ...]]] = {
    Shape.TRIANGLE: [(0, 0), (1, 0), (0, 1)],
    Shape.QUADRILATERAL: [(0, 0), (1, 0), (1, 1), (0, 1)],
    Shape.TETRAHEDRON: [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)],
    Shape.HEXAHEDRON: [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)],
}
"""Reference corners in VTK's order."""

LOOPS: dict[Shape, list[tuple[int, ...]]] = {
    Shape.TRIANGLE: [(0, 1, 2)],
    Shape.QUADRILATERAL: [(0, 1, 2, 3)],
    Shape.TETRAHEDRON: [(0, 1, 2), (0, 1, 3), (1, 2, 3), (2, 0, 3)],
    Shape.HEXAHEDRON: [(0, 4, 7, 3), (1, 2, 6, 5), (0, 1, 5, 4), (3, 7, 6, 2), (0, 3, 2, 1), (4, 5, 6, 7)],
}
"""Corners around the faces (the cell itself in the plane)."""

EDGES: dict[Shape, list[tuple[int, int]]] = {
    Shape.TRIANGLE: [(0, 1), (1, 2), (2, 0)],
    Shape.QUADRILATERAL: [(0, 1), (1, 2), (2, 3), (3, 0)],
    Shape.TETRAHEDRON: [(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)],
    Shape.HEXAHEDRON: [*pairwise((0, 1, 2, 3, 0)), *pairwise((4, 5, 6, 7, 4)), (0, 4), (1, 5), (2, 6), (3, 7)],
}
"""Corners of the edges whose middles follow the corners in quadratic cells, in VTK's order."""

VTK_NAMES = {
    (Shape.TRIANGLE, 3): "triangle",
    (Shape.TRIANGLE, 6): "triangle6",
    (Shape.QUADRILATERAL, 4): "quad",
    (Shape.QUADRILATERAL, 8): "quad8",
    (Shape.QUADRILATERAL, 9): "quad9",
    (Shape.TETRAHEDRON, 4): "tetra",
    (Shape.TETRAHEDRON, 10): "tetra10",
    (Shape.HEXAHEDRON, 8): "hexahedron",
    (Shape.HEXAHEDRON, 20): "hexahedron20",
    (Shape.HEXAHEDRON, 27): "hexahedron27",
}
"""meshio's name of each cell, by shape and number of nodes."""


@cache
def element_of(shape: Shape, nodes: int) -> Any:
    """scikit-fem's element on a shape with so many nodes."""
    import skfem

    elements = {
        (Shape.TRIANGLE, 3): skfem.ElementTriP1,
        (Shape.TRIANGLE, 6): skfem.ElementTriP2,
        (Shape.QUADRILATERAL, 4): skfem.ElementQuad1,
        (Shape.QUADRILATERAL, 8): skfem.ElementQuadS2,
        (Shape.QUADRILATERAL, 9): skfem.ElementQuad2,
        (Shape.TETRAHEDRON, 4): skfem.ElementTetP1,
        (Shape.TETRAHEDRON, 10): skfem.ElementTetP2,
        (Shape.HEXAHEDRON, 8): skfem.ElementHex1,
        (Shape.HEXAHEDRON, 20): skfem.ElementHexS2,
        (Shape.HEXAHEDRON, 27): skfem.ElementHex2,
    }
    return elements[shape, nodes]()


def lagrange(shape: Shape, order: int) -> Any:
    """scikit-fem's Lagrange element of order 1 or 2 on a shape."""
    return element_of(shape, sorted(count for s, count in VTK_NAMES if s is shape)[0 if order == 1 else -1])


def node_positions(shape: Shape, nodes: int) -> np.ndarray:
    """Reference positions (nodes, dim) in VTK's order: corners, middles of edges, of faces, of the cell."""
    corners = np.array(CORNERS[shape], dtype=float)
    edges = np.stack([corners[list(edge)].mean(0) for edge in EDGES[shape]])
    faces = np.stack([corners[list(face)].mean(0) for face in LOOPS[shape]])
    return np.concatenate((corners, edges, faces, corners.mean(0, keepdims=True)))[:nodes]


def element_order(element: Any, positions: np.ndarray) -> np.ndarray:
    """For each node of the element, the row of `positions` (nodes, dim) where it lies."""
    distance = np.linalg.norm(element.doflocs[:, None] - positions[None], axis=-1)
    return distance.argmin(1)


def reference_shapes(element: Any, points: np.ndarray) -> tuple[Tensor, Tensor]:
    """Shape functions (nodes, points) and gradients (nodes, points, dim) of the reference cell at points (dim, points)."""
    evaluated = [element.lbasis(points, i) for i in range(element.doflocs.shape[0])]
    shape = (points.shape[1],)
    values = np.stack([np.broadcast_to(value, shape) for value, _ in evaluated])
    gradients = np.stack([np.broadcast_to(gradient, points.shape).T for _, gradient in evaluated])
    return torch.from_numpy(values.astype(float)), torch.from_numpy(gradients.astype(float))
