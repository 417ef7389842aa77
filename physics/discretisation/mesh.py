"""Meshes: cells with named boundaries, regions and points, seen through operators, constraints and interpolation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex, Facets, tensors
from physics.discretisation.constraints import Affine, Dirichlet, Tie, periodic
from physics.discretisation.hanging_nodes import hanging_ties
from physics.discretisation.mesh_checks import check_mesh
from physics.discretisation.mesh_operator import MeshOperator, cell_operator, facet_operator
from physics.discretisation.point_location import Interpolation, locate
from physics.discretisation.reference_cells import Shape, lagrange


@dataclass(frozen=True, eq=False)
class Mesh(CellComplex):
    """A mesh of Lagrange or serendipity elements of one kind; see `CellComplex` for what it holds.

    hanging: nodes may lie on facets of cells that they do not belong to; `hanging_ties` ties them.
    Raises InputError for inverted, flat or dangling elements, for nodes that belong to no element, and for hanging ones.
    """

    hanging: bool = False

    def __post_init__(self) -> None:
        check_mesh(self, self.hanging)

    @staticmethod
    def from_skfem(mesh: Any, order: int | None = None, element: Any = None, hanging: bool = False) -> Mesh:
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
        tagged = {name: _facets(mesh, np.asarray(facets)) for name, facets in (mesh.boundaries or {}).items()}
        regions = {name: np.asarray(cells) for name, cells in (mesh.subdomains or {}).items()}
        return Mesh(*tensors(nodes.T, of_cells.T), element, tagged, regions, hanging=hanging)

    def moved(self, coordinates: Tensor) -> Mesh:
        """The same mesh with its nodes elsewhere: coordinates (nodes, dim)."""
        return replace(self, coordinates=coordinates)

    def with_boundary(self, name: str, where: Callable[[np.ndarray], np.ndarray]) -> Mesh:
        """With one more boundary: the exterior facets whose midpoints x (facets, dim) satisfy where(x) (facets,)."""
        keep = np.asarray(where(self.facet_midpoints(self.exterior)), dtype=bool)
        if not keep.any():
            raise InputError(f"boundary '{name}': no exterior facet satisfies its condition")
        return replace(self, boundaries={**self.boundaries, name: self.exterior[keep]})

    def with_region(self, name: str, where: Callable[[np.ndarray], np.ndarray]) -> Mesh:
        """With one more region: the cells whose centres x (cells, dim) satisfy where(x) (cells,)."""
        cells = np.flatnonzero(where(self.positions[self.cells.numpy()].mean(1)))
        if not len(cells):
            raise InputError(f"region '{name}': no cell satisfies its condition")
        return replace(self, regions={**self.regions, name: cells})

    def boundary(self, name: str) -> Facets:
        """The facets of a named boundary; raises InputError for an unknown name."""
        return _named(self.boundaries, name, "boundary")

    def region(self, name: str) -> Tensor:
        """The cells of a named region, as numbers; raises InputError for an unknown name."""
        return torch.from_numpy(_named(self.regions, name, "region"))

    def nodes_on(self, name: str) -> Tensor:
        """The nodes of a named boundary or point set, sorted."""
        if name in self.point_sets and name not in self.boundaries:
            return torch.from_numpy(np.unique(self.point_sets[name]))
        return torch.from_numpy(self.nodes_of(self.boundary(name)))

    def nodes_where(self, where: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """The nodes whose coordinates x (nodes, dim) satisfy where(x) -> bool (nodes,)."""
        return torch.as_tensor(np.flatnonzero(where(self.positions)))

    def operator(
        self, *, gradient: bool = True, value: bool = False, axisymmetric: bool = False, quadrature: int | None = None
    ) -> MeshOperator:
        """The operator B of gradients and values at the quadrature points of the cells; see `MeshOperator`."""
        return cell_operator(self, gradient=gradient, value=value, axisymmetric=axisymmetric, quadrature=quadrature)

    def boundary_operator(
        self, name: str, *, axisymmetric: bool = False, quadrature: int | None = None
    ) -> MeshOperator:
        """The operator B of values at the quadrature points of a boundary's facets; see `MeshOperator`."""
        return facet_operator(self, self.boundary(name), axisymmetric=axisymmetric, quadrature=quadrature)

    def fixed(
        self,
        name: str,
        components: Sequence[int] | None = None,
        value: float | Tensor = 0.0,
        *,
        without: Sequence[str] = (),
    ) -> Dirichlet:
        """A prescribed value on a boundary or point set, for some components (default all).

        params["boundary"][name] overrides it. without: boundaries whose nodes are left to their own conditions.
        """
        nodes = self.nodes_on(name)
        for other in without:
            nodes = nodes[~torch.isin(nodes, self.nodes_on(other))]
        return Dirichlet(name, nodes, components, value)

    def periodic(
        self, minus: str, plus: str, components: Sequence[int] | None = None, jump: float | Tensor = 0.0
    ) -> Tie:
        """u(plus) = u(minus) + jump between opposite boundaries; params["boundary"][plus] overrides the jump."""
        return periodic(plus, self.coordinates, self.nodes_on(minus), self.nodes_on(plus), components, jump)

    def hanging_ties(self, components: int = 1) -> list[Affine]:
        """Constraints that make hanging nodes follow the cells on whose facets they lie."""
        return hanging_ties(self, components)

    def locate(self, points: Any, tolerance: float = 1e-6) -> Interpolation:
        """Interpolation of nodal fields at points (P, dim); see `physics.discretisation.point_location.locate`."""
        return locate(self, np.asarray(points, dtype=float), tolerance)


def _nodes(mesh: Any, element: Any) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (dim, nodes) and cells (nodes per cell, cells) of the element's nodes on a scikit-fem mesh."""
    import skfem

    if isinstance(element, mesh.elem):
        return mesh.doflocs, mesh.dofs.element_dofs
    with np.errstate(all="ignore"):  # flat elements are reported by the checks, in words
        basis = skfem.CellBasis(mesh, element, intorder=1)
    return basis.doflocs, basis.element_dofs


def _facets(mesh: Any, index: np.ndarray) -> Facets:
    cells = mesh.f2t[0, index]
    local = np.argmax(mesh.t2f[:, cells] == index[None, :], axis=0)
    return Facets(cells.astype(np.int32), local.astype(np.int8))


Named = TypeVar("Named")


def _named(known: Mapping[str, Named], name: str, what: str) -> Named:
    if name not in known:
        raise InputError(f"the mesh has no {what} '{name}'; it has {', '.join(sorted(known)) or 'none'}")
    return known[name]
