"""Meshes made on the spot: rectangles, boxes, and arrays of vertices and cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from bilevel.report import InputError, chosen, require
from physics.discretisation.mesh import Mesh
from physics.discretisation.reference_cells import Shape


def rectangle(
    nx: int,
    ny: int,
    lengths: tuple[float, float] = (1.0, 1.0),
    shape: Shape = Shape.QUADRILATERAL,
    order: int = 1,
    element: Any = None,
) -> Mesh:
    """nx x ny cells (halved into triangles if asked) on [0, lengths]; boundaries left, right, bottom, top."""
    import skfem

    kinds = {Shape.QUADRILATERAL: skfem.MeshQuad, Shape.TRIANGLE: skfem.MeshTri}
    axes = [np.linspace(0.0, length, n + 1) for n, length in zip((nx, ny), lengths)]
    return Mesh.from_skfem(_kind(kinds, shape).init_tensor(*axes).with_defaults(), order, element)


def box(
    nx: int,
    ny: int,
    nz: int,
    lengths: tuple[float, float, float] = (1.0, 1.0, 1.0),
    shape: Shape = Shape.HEXAHEDRON,
    order: int = 1,
    element: Any = None,
) -> Mesh:
    """nx x ny x nz bricks, or tetrahedra, on [0, lengths]; boundaries left/right (x), bottom/top (y), front/back (z)."""
    import skfem

    kinds = {Shape.HEXAHEDRON: skfem.MeshHex, Shape.TETRAHEDRON: skfem.MeshTet}
    axes = [np.linspace(0.0, length, n + 1) for n, length in zip((nx, ny, nz), lengths)]
    return Mesh.from_skfem(_kind(kinds, shape).init_tensor(*axes).with_defaults(), order, element)


def from_arrays(
    points: Any, cells: Any, shape: Shape, order: int = 1, element: Any = None, hanging: bool = False
) -> Mesh:
    """From vertex coordinates (vertices, dim) and cells (cells, vertices per cell) in the usual (VTK) order."""
    import skfem

    points, cells = np.asarray(points, dtype=float), np.asarray(cells, dtype=np.int64)
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(1))[0])
        raise InputError(f"mesh: vertex {row} has coordinates that are NaN or infinite")
    if cells.min() < 0 or cells.max() >= len(points):
        raise InputError(
            f"mesh: a cell names vertex {cells.max()}, but there are {len(points)} vertices, counted from 0"
        )
    unused = np.setdiff1d(np.arange(len(points)), cells)
    if len(unused):
        raise InputError(f"mesh: vertex {unused[0]} belongs to no element ({len(unused)} such vertices)")
    kinds = {
        Shape.TRIANGLE: skfem.MeshTri,
        Shape.QUADRILATERAL: skfem.MeshQuad,
        Shape.TETRAHEDRON: skfem.MeshTet,
        Shape.HEXAHEDRON: skfem.MeshHex,
    }
    if shape is Shape.HEXAHEDRON:
        cells = cells[:, [6, 2, 5, 7, 1, 3, 4, 0]]  # scikit-fem counts the corners of a brick down from (1, 1, 1)
    return Mesh.from_skfem(kinds[shape](points.T.copy(), cells.T.copy()), order, element, hanging)


def _kind(kinds: dict[Shape, Any], shape: Shape) -> Any:
    """Scikit-fem's mesh of a shape; raises InputError for shapes that such a mesh cannot be made of."""
    shape = chosen(Shape, shape)
    require(
        shape in kinds, f"this mesh is made of {' or '.join(f'Shape.{kind.name}' for kind in kinds)}, not of {shape}"
    )
    return kinds[shape]
