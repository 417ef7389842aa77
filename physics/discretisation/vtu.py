"""State fields as VTU files, which ParaView opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.mesh import Mesh, Shape

CORNERS = {
    Shape.TRIANGLE: [(0, 0), (1, 0), (0, 1)],
    Shape.QUADRILATERAL: [(0, 0), (1, 0), (1, 1), (0, 1)],
    Shape.TETRAHEDRON: [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)],
    Shape.HEXAHEDRON: [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)],
}
"""Reference corners in VTK's order."""

EDGES = {
    Shape.TRIANGLE: [(0, 1), (1, 2), (2, 0)],
    Shape.QUADRILATERAL: [(0, 1), (1, 2), (2, 3), (3, 0)],
    Shape.TETRAHEDRON: [(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)],
    Shape.HEXAHEDRON: [
        *((0, 1), (1, 2), (2, 3), (3, 0)),
        *((4, 5), (5, 6), (6, 7), (7, 4)),
        *((0, 4), (1, 5), (2, 6), (3, 7)),
    ],
}
"""Corners of the edges whose middles follow the corners in quadratic cells."""

TYPES = {
    Shape.TRIANGLE: {3: "triangle", 6: "triangle6"},
    Shape.QUADRILATERAL: {4: "quad", 8: "quad8"},
    Shape.TETRAHEDRON: {4: "tetra", 10: "tetra10"},
    Shape.HEXAHEDRON: {8: "hexahedron", 20: "hexahedron20"},
}


def write_vtu(
    path: str | Path,
    mesh: Mesh,
    nodal: Mapping[str, Tensor] | None = None,
    cellwise: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write nodal fields (nodes, ...) and cell fields (cells, ...) with their mesh; returns the path.

    Vectors of plane problems get a third component of zero. Nodes inside quadratic faces and cells, which the VTK cells
    written do not have, are points without a cell. Raises InputError for a field of another length.
    """
    import meshio

    order = _vtk_order(mesh)
    points = _three(mesh.coordinates.detach().numpy())
    data = {name: _field(name, field, len(points)) for name, field in (nodal or {}).items()}
    own = {name: [_field(name, field, len(mesh.cells))] for name, field in (cellwise or {}).items()}
    cells = [(TYPES[mesh.shape][len(order)], mesh.cells.numpy()[:, order])]
    meshio.Mesh(points, cells, point_data=data, cell_data=own).write(str(path), file_format="vtu")
    return Path(path)


def _vtk_order(mesh: Mesh) -> list[int]:
    corners = np.array(CORNERS[mesh.shape], dtype=float)
    wanted = corners
    if mesh.degree == 2:
        wanted = np.concatenate((corners, [corners[list(edge)].mean(0) for edge in EDGES[mesh.shape]]))
    distance = np.linalg.norm(wanted[:, None] - mesh.element.doflocs[None], axis=-1)
    return [int(i) for i in distance.argmin(1)]


def _field(name: str, field: Tensor, count: int) -> np.ndarray:
    values = field.detach().cpu().numpy()
    if len(values) != count:
        raise InputError(f"field '{name}' has {len(values)} rows, the mesh has {count}")
    if values.size == count:
        return values.reshape(count)
    return _three(values) if values.ndim == 2 else values


def _three(values: np.ndarray) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, 3 - values.shape[1]))) if values.shape[1] < 3 else values
