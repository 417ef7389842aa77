"""Mesh files: any that meshio reads becomes a mesh with all its groups, or is refused by a sentence that says why."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex, Facets, tensors
from physics.discretisation.mesh import Mesh
from physics.discretisation.reference_cells import (
    CORNERS,
    VTK_NAMES,
    Shape,
    element_of,
    element_order,
    lagrange,
    node_positions,
    reference_shapes,
)

KINDS = {name: key for key, name in VTK_NAMES.items()}
IN_SPACE = ("wedge", "pyramid", "tetra", "hexahedron", "polyhedron")
"""Beginnings of meshio's names of cells that fill space."""
TAGS = ("gmsh:physical", "gmsh:geometrical", "medit:ref", "cell_tags", "nastran:ref", "flac3d:group")
"""Cell data that number groups; the first that a file has is taken."""
AXES = {"xy": (0, 1), "xz": (0, 2), "yz": (1, 2)}
SAME_PLACE = 1e-9
"""Nodes closer than this fraction of the mesh's size coincide."""

Plane = Literal["xy", "xz", "yz"]
Coincident = Literal["refuse", "merge", "keep"]


@dataclass(frozen=True)
class Block:
    """Cells (cells, nodes) of one of meshio's types, and the groups that they are in, as numbers of cells by name."""

    kind: str
    cells: np.ndarray
    groups: dict[str, np.ndarray]

    @property
    def dim(self) -> int:
        """The dimension of the cells themselves."""
        if self.kind == "vertex":
            return 0
        return 1 if self.kind.startswith("line") else 3 if self.kind.startswith(IN_SPACE) else 2


def read_mesh(
    path: str | Path,
    order: int | None = None,
    *,
    plane: Plane = "xy",
    coincident: Coincident = "refuse",
    scale: float = 1.0,
    hanging: bool = False,
) -> Mesh:
    """The mesh of a file that meshio reads (gmsh, VTU, Abaqus, Exodus ...), in metres.

    The cells of the highest dimension make the mesh. Groups keep their names (unnamed ones their numbers): those of
    cells become regions, of facets boundaries, of edges and points point sets. order: 2 makes linear cells quadratic.
    plane: the axes of a plane mesh, "xz" for a vertical section. coincident: what becomes of different nodes in one
    place, "refuse", "merge" or "keep" (interfaces, cracks). scale: metres in the file's unit of length. hanging: nodes may
    hang on facets, for `Mesh.hanging_ties` to tie.
    Raises InputError for what it cannot take whole: mixed cells, wedges, pyramids, surfaces in space.
    """
    file = _loaded(Path(path))
    try:
        return _mesh(file, order, plane, coincident, scale, hanging)
    except InputError as error:
        raise InputError(f"mesh file {path}: {str(error).removeprefix('mesh: ')}") from None


def _loaded(path: Path) -> Any:
    import meshio

    if not path.is_file():
        raise InputError(f"mesh file {path} does not exist")
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):  # meshio prints what it cannot read
            return meshio.read(str(path))
    except ModuleNotFoundError as error:
        raise InputError(f"mesh file {path} needs the package {error.name}, which is not installed") from None
    except (Exception, SystemExit) as error:  # meshio leaves by SystemExit where no format fits
        reason = " ".join((told.getvalue() or str(error) or type(error).__name__).split())[:200]
        raise InputError(f"mesh file {path} could not be read: {reason}") from None


def _mesh(file: Any, order: int | None, plane: Plane, coincident: Coincident, scale: float, hanging: bool) -> Mesh:
    points, notes = np.asarray(file.points, dtype=float) * scale, _ignored(file)
    blocks = _joined(points, list(_blocks(file)), coincident)
    dim = max((block.dim for block in blocks if len(block.cells)), default=0)
    if dim < 2:
        raise InputError("it holds no cells of two or three dimensions")
    shape, cells, regions = _one_kind([block for block in blocks if block.dim == dim], points)
    cells, regions = _listed_once(cells, regions)
    points = _in_plane(points, cells, plane) if dim == 2 else points
    cells = cells[:, _file_order(shape, points[cells])]
    element = element_of(shape, cells.shape[1])
    cells = cells[:, element_order(element, node_positions(shape, cells.shape[1]))]
    used, compact = np.unique(cells, return_inverse=True)
    number = np.full(len(points), -1)
    number[used] = np.arange(len(used))
    if len(used) < len(points):
        notes.append(f"{len(points) - len(used)} point(s) of the file belong to no cell and were left out")
    bare = CellComplex(*tensors(points[used], compact.reshape(cells.shape)), element)
    boundaries, sets = _lower_groups([block for block in blocks if block.dim < dim], bare, number)
    for name, nodes in (file.point_sets or {}).items():
        sets[name] = _renumbered(number, np.asarray(nodes), f"point set '{name}'")
    mesh = Mesh(bare.coordinates, bare.cells, element, boundaries, regions, sets, tuple(notes), hanging)
    return mesh if order is None else _of_order(mesh, order)


def _ignored(file: Any) -> list[str]:
    """Sentences about fields in the file that no mesh keeps."""
    fields = [name for name in (*file.point_data, *file.cell_data) if name not in (*TAGS, "gmsh:dim_tags")]
    kept = {name for name in file.cell_data if _is_tag(file.cell_data[name])}
    dropped = [name for name in fields if name not in kept]
    return [f"fields of the file were left out: {', '.join(dropped)}"] if dropped else []


def _is_tag(columns: list[np.ndarray]) -> bool:
    return all(np.asarray(column).dtype.kind in "iu" and np.ndim(column) == 1 for column in columns)


def _blocks(file: Any) -> Iterator[Block]:
    """The cells with their groups: meshio's cell sets, and numbers that stand in cell data."""
    names = {(int(tag), int(dim)): name for name, (tag, dim) in _named_tags(file)}
    sets = {name: parts for name, parts in file.cell_sets.items() if not name.startswith("gmsh:")}
    known = [key for key in TAGS if key in file.cell_data][:1]
    others = [key for key in file.cell_data if key not in TAGS and _is_tag(file.cell_data[key])]
    for place, cells in enumerate(file.cells):
        block = Block(cells.type, np.asarray(cells.data), {})
        for name, parts in sets.items():
            if parts[place] is not None and len(parts[place]):
                block.groups[name] = np.asarray(parts[place], dtype=np.int64)
        for key in (*known, *others):
            values = np.asarray(file.cell_data[key][place])
            for tag in np.unique(values[values != 0] if key in known else values):
                name = names.get((int(tag), block.dim), str(tag) if key in known else f"{key}={tag}")
                block.groups.setdefault(name, np.flatnonzero(values == tag))
        yield block


def _named_tags(file: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in (file.field_data or {}).items() if np.size(value) == 2]


def _joined(points: np.ndarray, blocks: list[Block], coincident: Coincident) -> list[Block]:
    """The cells with coincident nodes made one; InputError where they are not expected."""
    used = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *[block.cells.ravel() for block in blocks]]))
    if coincident == "keep" or not len(used):
        return blocks
    if not np.isfinite(points[used]).all():
        raise InputError(f"node {used[~np.isfinite(points[used]).all(1)][0]} has coordinates that are NaN or infinite")
    size = np.ptp(points[used], axis=0).max()
    pairs = cKDTree(points[used]).query_pairs(SAME_PLACE * size, output_type="ndarray")
    if not len(pairs):
        return blocks
    if coincident == "refuse":
        first, second = used[pairs[0]]
        raise InputError(
            f"nodes {first} and {second} lie in one place, {points[first].tolist()} ({len(pairs)} such pairs), so what is "
            "around them is not joined; read it with coincident='merge', or 'keep' where that is meant"
        )
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(used), len(used)))
    cluster = connected_components(links, directed=False)[1]
    one = np.arange(len(points))
    one[used] = used[np.unique(cluster, return_index=True)[1]][cluster]
    return [Block(block.kind, one[block.cells], block.groups) for block in blocks]


def _one_kind(blocks: list[Block], points: np.ndarray) -> tuple[Shape, np.ndarray, dict[str, np.ndarray]]:
    """Shape, cells and groups of blocks that are of one kind."""
    counts = Counter(dict.fromkeys((block.kind for block in blocks), 0))
    for block in blocks:
        counts[block.kind] += len(block.cells)
    strange = [kind for kind in counts if kind not in KINDS]
    if strange or len(counts) > 1:
        kind = strange[0] if strange else counts.most_common()[-1][0]
        rare = next(block for block in blocks if block.kind == kind)
        centre = ", ".join(f"{x:.6g}" for x in points[rare.cells[0]].mean(0))
        listed = " and ".join(f"{count} {name}" for name, count in counts.most_common())
        wanted = f"cells known are {', '.join(KINDS)}" if strange else "cells of one kind are needed"
        raise InputError(f"it has {listed} cells; {wanted}. The first {kind} is around ({centre})")
    cells = np.concatenate([block.cells for block in blocks])
    return KINDS[blocks[0].kind][0], cells, _together(blocks)


def _together(blocks: list[Block]) -> dict[str, np.ndarray]:
    """The groups of all blocks, by numbers of cells that run on from block to block."""
    starts = np.cumsum([0, *[len(block.cells) for block in blocks]])
    names = dict.fromkeys(name for block in blocks for name in block.groups)
    return {
        name: np.concatenate([b.groups[name] + start for b, start in zip(blocks, starts) if name in b.groups])
        for name in names
    }


def _listed_once(cells: np.ndarray, groups: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Cells without repetition: gmsh's version 2 lists a cell again for each group that it is in."""
    _, first, number = np.unique(np.sort(cells, axis=1), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return cells[first[order]], {name: np.unique(place[number.reshape(-1)[own]]) for name, own in groups.items()}


def _in_plane(points: np.ndarray, cells: np.ndarray, plane: Plane) -> np.ndarray:
    """The two coordinates of a plane mesh; InputError for surfaces in space, and for another plane than was said."""
    if points.shape[1] == 2:
        return points
    used = points[np.unique(cells)]
    extent = np.ptp(used, axis=0)
    flat = {name: extent[({0, 1, 2} - set(axes)).pop()] <= SAME_PLACE * extent.max() for name, axes in AXES.items()}
    if flat[plane]:
        return points[:, AXES[plane]]
    other = next((name for name in flat if flat[name]), None)
    if other is not None:
        raise InputError(f"its cells lie in a plane {other}, not {plane}; read it with plane='{other}'")
    raise InputError(
        "its cells are a surface in space, of extent "
        + " x ".join(f"{x:.4g}" for x in extent)
        + "; meshes are plane or solid"
    )


def _file_order(shape: Shape, positions: np.ndarray) -> np.ndarray:
    """For each node of a cell in VTK's order, its place in the file: formats order the middles of edges differently.

    positions (cells, nodes, dim). Told from where the nodes lie: on average over the cells, next to the middle of an edge,
    face or cell.
    """
    corners, count = len(CORNERS[shape]), positions.shape[1]
    if count == corners:
        return np.arange(count)
    shapes = reference_shapes(lagrange(shape, 1), node_positions(shape, count).T)[0].numpy()
    vertices = positions[:, element_order(lagrange(shape, 1), np.array(CORNERS[shape], dtype=float))]
    expected = np.einsum("aj,ead->ejd", shapes, vertices)[:, corners:]
    size = np.ptp(vertices, axis=1).max(1)
    distance = np.linalg.norm(expected[:, :, None] - positions[:, None, corners:], axis=-1) / size[:, None, None]
    rows, columns = linear_sum_assignment((distance**2).mean(0))
    if distance.mean(0)[rows, columns].max() > 0.25:
        raise InputError("the middle nodes of its quadratic cells do not lie near the middles of their edges")
    return np.concatenate((np.arange(corners), corners + columns))


def _lower_groups(
    blocks: list[Block], mesh: CellComplex, number: np.ndarray
) -> tuple[dict[str, Facets], dict[str, np.ndarray]]:
    """Groups of facets as boundaries; groups of edges and points as sets of nodes."""
    boundaries: dict[str, Facets] = {}
    sets: dict[str, np.ndarray] = {}
    names = dict.fromkeys((name, block.dim) for block in blocks for name in block.groups)
    for name, dim in names:
        own = [block for block in blocks if block.dim == dim and name in block.groups]
        if dim < mesh.dim - 1:
            nodes = [_renumbered(number, b.cells[b.groups[name]].ravel(), f"group '{name}'") for b in own]
            sets[name] = np.unique(np.concatenate(nodes))
            continue
        corners = [b.cells[b.groups[name]][:, : _facet_corners(b.kind)] for b in own]
        if len({part.shape[1] for part in corners}) > 1:
            raise InputError(f"group '{name}' has facets of different kinds")
        facets, missing = mesh.facets_with(_renumbered(number, np.concatenate(corners), f"group '{name}'"))
        if len(missing):
            raise InputError(
                f"group '{name}': {len(missing)} of {len(missing) + len(facets.cells)} facets belong to no cell"
            )
        boundaries[name] = facets
    return boundaries, sets


def _facet_corners(kind: str) -> int:
    return 2 if kind.startswith("line") else 3 if kind.startswith("triangle") else 4


def _renumbered(number: np.ndarray, nodes: np.ndarray, what: str) -> np.ndarray:
    found = number[nodes]
    if (found < 0).any():
        raise InputError(f"{what} names {int((found < 0).sum())} node(s) that belong to no cell of the mesh")
    return found


def _of_order(mesh: Mesh, order: int) -> Mesh:
    """The mesh with elements of another order, its groups kept."""
    if order not in (1, 2):
        raise InputError(f"elements are linear (order=1) or quadratic (order=2), got order={order}")
    if order == mesh.degree:
        return mesh
    if order < mesh.degree:
        raise InputError("it holds quadratic cells; leave `order` out or give 2")
    positions = node_positions(mesh.shape, len(lagrange(mesh.shape, 2).doflocs))
    weights = reference_shapes(mesh.element, positions.T)[0].numpy()
    corners = mesh.cells.numpy()
    masters = [np.flatnonzero(column > 1e-12) for column in weights.T]
    keys = np.stack([_key(np.sort(corners[:, nodes], axis=1), corners.shape[1]) for nodes in masters], 1)
    _, first, number = np.unique(keys.reshape(-1, keys.shape[-1]), axis=0, return_index=True, return_inverse=True)
    x = np.einsum("aj,ead->ejd", weights, mesh.positions[corners]).reshape(-1, mesh.dim)
    element = lagrange(mesh.shape, 2)
    cells = number.reshape(len(corners), -1)[:, element_order(element, positions)]
    sets = {name: _moved_nodes(mesh, nodes, x[first]) for name, nodes in mesh.point_sets.items()}
    return Mesh(*tensors(x[first], cells), element, mesh.boundaries, mesh.regions, sets, mesh.notes, mesh.hanging)


def _key(nodes: np.ndarray, width: int) -> np.ndarray:
    """Corner nodes that a node lies between, as rows of one width."""
    return np.pad(nodes, ((0, 0), (0, width - nodes.shape[1])), constant_values=-1)


def _moved_nodes(mesh: Mesh, nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.asarray(cKDTree(x).query(mesh.positions[nodes])[1])
