"""State fields as VTU files, which ParaView opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex
from physics.discretisation.reference_cells import VTK_NAMES, node_positions


def write_vtu(
    path: str | Path,
    mesh: CellComplex,
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
    cells = [(VTK_NAMES[mesh.shape, len(order)], mesh.cells.numpy()[:, order])]
    meshio.Mesh(points, cells, point_data=data, cell_data=own).write(str(path), file_format="vtu")
    return Path(path)


def write_gmsh(path: str | Path, mesh: CellComplex) -> Path:
    """Write a plane mesh with its regions and boundaries as physical groups of gmsh 2.2; returns the path.

    Raises InputError for meshes in space, and for regions that overlap.
    """
    import meshio

    if mesh.dim != 2:
        raise InputError("only plane meshes are written for gmsh")
    groups = {name: (number, dim) for number, (name, dim) in enumerate(_groups(mesh), 1)}
    tags = np.zeros(len(mesh.cells), dtype=int)
    for name, cells in mesh.regions.items():
        if tags[cells].any():
            raise InputError(f"region '{name}' overlaps another one; gmsh gives each cell one group")
        tags[cells] = groups[name][0]
    order = np.linalg.norm(
        node_positions(mesh.shape, len(mesh.element.doflocs))[:, None] - mesh.element.doflocs[None], axis=-1
    ).argmin(1)
    blocks = [(VTK_NAMES[mesh.shape, len(order)], mesh.cells.numpy()[:, order])]
    data = [tags]
    for name, facets in mesh.boundaries.items():
        lines = np.stack([_line(mesh, int(c), int(f)) for c, f in zip(facets.cells, facets.local)])
        blocks.append(("line" if lines.shape[1] == 2 else "line3", lines))
        data.append(np.full(len(lines), groups[name][0]))
    points = _three(mesh.coordinates.detach().numpy())
    field_data = {name: np.array(group) for name, group in groups.items()}
    cell_data = {"gmsh:physical": data, "gmsh:geometrical": data}
    meshio.Mesh(points, blocks, cell_data=cell_data, field_data=field_data).write(str(path), file_format="gmsh22")
    return Path(path)


def _groups(mesh: CellComplex) -> list[tuple[str, int]]:
    return [*((name, mesh.dim) for name in mesh.regions), *((name, mesh.dim - 1) for name in mesh.boundaries)]


def _line(mesh: CellComplex, cell: int, facet: int) -> np.ndarray:
    """The nodes of a facet in gmsh's order: its ends, then its middle."""
    ends = mesh.corners[cell][list(mesh.element.refdom.facets[facet])]
    nodes = mesh.cells[cell].numpy()[mesh.facet_nodes[facet]]
    return np.concatenate((ends, nodes[~np.isin(nodes, ends)]))


def _vtk_order(mesh: CellComplex) -> list[int]:
    """The element's nodes in VTK's order; nodes inside faces and cells are left out."""
    count = max(
        n for shape, n in VTK_NAMES if shape is mesh.shape and n <= len(mesh.element.doflocs) and n not in (9, 27)
    )
    distance = np.linalg.norm(node_positions(mesh.shape, count)[:, None] - mesh.element.doflocs[None], axis=-1)
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
