"""Meshes of the unit square and cube of linear cells: triangulations of shifted points, and regular ones."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from physics.discretisation import Mesh, Shape, box, from_arrays, rectangle

SHIFT = 0.35
"""The nodes of a lattice are moved by up to this fraction of its spacing, those on a side along it only."""

FLAT = 1e-6
"""Triangles of less than this area, in squares of the lattice, come of rounding along the sides."""


def shifted(size: int, rng: np.random.Generator) -> Mesh:
    """Delaunay's triangles of about `size` shifted points of the unit square; boundaries left and right."""
    count = _across(size, 2)
    spacing = 1.0 / (count - 1)
    lattice = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, count)] * 2), -1).reshape(-1, 2)
    inside = (lattice > 0.5 * spacing) & (lattice < 1.0 - 0.5 * spacing)
    points = lattice + np.where(inside, SHIFT * spacing * rng.uniform(-1.0, 1.0, lattice.shape), 0.0)
    cells = Delaunay(points).simplices
    first, second = (points[cells[:, k]] - points[cells[:, 0]] for k in (1, 2))
    area = 0.5 * np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    mesh = from_arrays(points, cells[area > FLAT * spacing**2], Shape.TRIANGLE)
    return mesh.with_boundary("left", lambda x: x[:, 0] < FLAT).with_boundary("right", lambda x: x[:, 0] > 1.0 - FLAT)


def regular(size: int, dimension: int) -> Mesh:
    """Halved squares of the unit square, or tetrahedra of the unit cube; boundaries as of `rectangle` and `box`."""
    cells = _across(size, dimension) - 1
    if dimension == 2:
        return rectangle(cells, cells, shape=Shape.TRIANGLE)
    return box(cells, cells, cells, shape=Shape.TETRAHEDRON)


def _across(size: int, dimension: int) -> int:
    """Nodes along an edge."""
    return max(4, round(size ** (1.0 / dimension)))
