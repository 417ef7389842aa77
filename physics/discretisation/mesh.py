"""Meshes: coordinates, cells, named boundaries and point location, as a thin bridge to scikit-fem and meshio."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.mesh_checks import check_mesh

if TYPE_CHECKING:
    from physics.discretisation.constraints import Dirichlet, Tie
    from physics.discretisation.mesh_operator import MeshOperator
    from physics.discretisation.point_location import Interpolation


class Shape(Enum):
    """The shapes of cells; the value is the name of scikit-fem's reference domain."""

    TRIANGLE = "Triangular"
    QUADRILATERAL = "Quadrilateral"
    TETRAHEDRON = "Tetrahedral"
    HEXAHEDRON = "Hexahedral"


@dataclass(frozen=True, eq=False)
class Facets:
    """Facets of cells: the cell that each belongs to (F,) and its number within that cell (F,)."""

    cells: np.ndarray
    local: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> Facets:
        return Facets(self.cells[keep], self.local[keep])


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of Lagrange elements of one kind.

    coordinates (nodes, dim), in metres. cells (cells, nodes per cell), in scikit-fem's order. element: a scikit-fem
    element, which interpolates the geometry as well as the fields. exterior: the facets with one cell; interior:
    those with two, seen from either. boundaries: named sets of facets. Raises InputError for inverted, flat or
    dangling elements and for nodes that belong to no element.
    """

    coordinates: Tensor
    cells: Tensor
    element: Any
    exterior: Facets
    interior: tuple[Facets, Facets]
    boundaries: Mapping[str, Facets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_mesh(self)

    @staticmethod
    def from_skfem(mesh: Any, order: int | None = None, element: Any = None) -> Mesh:
        """From a scikit-fem mesh; `order` 1 or 2 picks the element (curved meshes give their own), or name the `element`."""
        if order not in (None, 1, 2):
            raise InputError(f"elements are linear (order=1) or quadratic (order=2), got order={order}")
        shape = Shape(mesh.refdom.name)
        element = (
            element if element is not None else lagrange(shape, order or (2 if mesh.nvertices != mesh.dofs.N else 1))
        )
        nodes, of_cells = _nodes(mesh, element)
        if of_cells.shape[0] != element.doflocs.shape[0]:
            raise InputError(f"{type(element).__name__} is not a scalar Lagrange element")
        exterior = _facets(mesh, mesh.boundary_facets())
        inside = np.flatnonzero(mesh.f2t[1] >= 0)
        interior = (_facets(mesh, inside), _facets(mesh, inside, side=1))
        tagged = {name: _facets(mesh, np.asarray(f)) for name, f in (mesh.boundaries or {}).items()}
        coordinates = torch.as_tensor(np.ascontiguousarray(nodes.T), dtype=torch.float64)
        cells = torch.as_tensor(np.ascontiguousarray(of_cells.T), dtype=torch.int64)
        return Mesh(coordinates, cells, element, exterior, interior, tagged)

    @property
    def dim(self) -> int:
        return self.coordinates.shape[1]

    @property
    def shape(self) -> Shape:
        return Shape(self.element.refdom.name)

    @property
    def degree(self) -> int:
        """The polynomial degree of the element along a line."""
        per_axis = self.dim if self.shape in (Shape.QUADRILATERAL, Shape.HEXAHEDRON) else 1
        return math.ceil(self.element.maxdeg / per_axis)

    def moved(self, coordinates: Tensor) -> Mesh:
        """The same mesh with its nodes elsewhere: coordinates (nodes, dim)."""
        return replace(self, coordinates=coordinates)

    def with_boundary(self, name: str, where: Callable[[np.ndarray], np.ndarray]) -> Mesh:
        """With one more boundary: the exterior facets whose midpoints x (facets, dim) satisfy where(x) (facets,)."""
        keep = np.asarray(where(self.facet_midpoints(self.exterior)), dtype=bool)
        if not keep.any():
            raise InputError(f"boundary '{name}': no exterior facet satisfies its condition")
        return replace(self, boundaries={**self.boundaries, name: self.exterior[keep]})

    def boundary(self, name: str) -> Facets:
        """The facets of a named boundary; raises InputError for an unknown name."""
        if name not in self.boundaries:
            raise InputError(
                f"the mesh has no boundary '{name}'; it has {', '.join(sorted(self.boundaries)) or 'none'}"
            )
        return self.boundaries[name]

    def nodes_on(self, name: str) -> Tensor:
        """The nodes of a named boundary, sorted."""
        facets = self.boundary(name)
        cells = self.cells.numpy()
        nodes = [cells[facets.cells[facets.local == f]][:, on].ravel() for f, on in enumerate(self.facet_nodes)]
        return torch.as_tensor(np.unique(np.concatenate(nodes)))

    def nodes_where(self, where: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """The nodes whose coordinates x (nodes, dim) satisfy where(x) -> bool (nodes,)."""
        return torch.as_tensor(np.flatnonzero(where(self.coordinates.detach().numpy())))

    def facet_midpoints(self, facets: Facets) -> np.ndarray:
        """The mean of each facet's nodes (facets, dim)."""
        x, cells = self.coordinates.detach().numpy(), self.cells.numpy()
        middle = np.empty((len(facets.cells), self.dim))
        for f, on in enumerate(self.facet_nodes):
            here = facets.local == f
            middle[here] = x[cells[facets.cells[here]][:, on]].mean(1)
        return middle

    @cached_property
    def facet_nodes(self) -> list[np.ndarray]:
        """For each facet of the reference cell, the local numbers of the nodes on it."""
        vertices, nodes = self.element.refdom.p.T, self.element.doflocs
        found = []
        for facet in self.element.refdom.facets:
            corner = vertices[facet]
            span = corner[1:] - corner[0]
            normal = np.linalg.svd(span)[2][-1]
            found.append(np.flatnonzero(np.abs((nodes - corner[0]) @ normal) < 1e-12))
        return found

    def operator(
        self, *, gradient: bool = True, value: bool = False, axisymmetric: bool = False, quadrature: int | None = None
    ) -> MeshOperator:
        """The operator B of gradients and values at the quadrature points of the cells; see `MeshOperator`."""
        from physics.discretisation.mesh_operator import cell_operator

        return cell_operator(self, gradient=gradient, value=value, axisymmetric=axisymmetric, quadrature=quadrature)

    def boundary_operator(
        self, name: str, *, axisymmetric: bool = False, quadrature: int | None = None
    ) -> MeshOperator:
        """The operator B of values at the quadrature points of a boundary's facets; see `MeshOperator`."""
        from physics.discretisation.mesh_operator import facet_operator

        return facet_operator(self, self.boundary(name), axisymmetric=axisymmetric, quadrature=quadrature)

    def fixed(self, name: str, components: Sequence[int] | None = None, value: float | Tensor = 0.0) -> Dirichlet:
        """A prescribed value on a boundary, for some components (default all); params["boundary"][name] overrides it."""
        from physics.discretisation.constraints import Dirichlet

        return Dirichlet(name, self.nodes_on(name), components, value)

    def periodic(
        self, minus: str, plus: str, components: Sequence[int] | None = None, jump: float | Tensor = 0.0
    ) -> Tie:
        """u(plus) = u(minus) + jump between opposite boundaries; params["boundary"][plus] overrides the jump."""
        from physics.discretisation.constraints import periodic

        return periodic(plus, self.coordinates, self.nodes_on(minus), self.nodes_on(plus), components, jump)

    def locate(self, points: Any, tolerance: float = 1e-6) -> Interpolation:
        """Interpolation of nodal fields at points (P, dim); see `physics.discretisation.point_location.locate`."""
        from physics.discretisation.point_location import locate

        return locate(self, np.asarray(points, dtype=float), tolerance)


def lagrange(shape: Shape, order: int) -> Any:
    """scikit-fem's Lagrange element of order 1 or 2 on a shape."""
    import skfem

    elements = {
        Shape.TRIANGLE: (skfem.ElementTriP1, skfem.ElementTriP2),
        Shape.QUADRILATERAL: (skfem.ElementQuad1, skfem.ElementQuad2),
        Shape.TETRAHEDRON: (skfem.ElementTetP1, skfem.ElementTetP2),
        Shape.HEXAHEDRON: (skfem.ElementHex1, skfem.ElementHex2),
    }
    return elements[shape][order - 1]()


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
    return Mesh.from_skfem(kinds[shape].init_tensor(*axes).with_defaults(), order, element)


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
    return Mesh.from_skfem(kinds[shape].init_tensor(*axes).with_defaults(), order, element)


def from_arrays(points: Any, cells: Any, shape: Shape, order: int = 1, element: Any = None) -> Mesh:
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
    return Mesh.from_skfem(kinds[shape](points.T.copy(), cells.T.copy()), order, element)


def read(path: str | Path, order: int | None = None) -> Mesh:
    """From any file that meshio reads (gmsh, VTU, Abaqus ...); physical groups of facets become boundaries."""
    import skfem

    if not Path(path).is_file():
        raise InputError(f"mesh file {path} does not exist")
    try:
        mesh = skfem.Mesh.load(str(path))
    except Exception as error:
        raise InputError(f"mesh file {path} could not be read: {error}") from error
    return Mesh.from_skfem(mesh, order)


def _nodes(mesh: Any, element: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (dim, nodes) and cells (nodes per cell, cells) of the element's nodes on a scikit-fem mesh."""
    import skfem

    if isinstance(element, mesh.elem):
        return mesh.doflocs, mesh.dofs.element_dofs
    with np.errstate(all="ignore"):  # flat elements are reported by the checks, in words
        basis = skfem.CellBasis(mesh, element, intorder=1)
    return basis.doflocs, basis.element_dofs


def _facets(mesh: Any, index: np.ndarray, side: int = 0) -> Facets:
    cells = mesh.f2t[side, index]
    local = np.argmax(mesh.t2f[:, cells] == index[None, :], axis=0)
    return Facets(cells.astype(np.int32), local.astype(np.int8))
