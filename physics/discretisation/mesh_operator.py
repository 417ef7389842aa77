"""The operator B and the weights w of a mesh, computed in torch from the node coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex, Facets
from physics.discretisation.matrices import inverse_and_determinant
from physics.discretisation.operator import LocalOperator, Rows
from physics.discretisation.reference_cells import reference_shapes


@dataclass(frozen=True, eq=False)
class MeshOperator(LocalOperator):
    """Gradients and values of a nodal field at quadrature points of cells or facets.

    The columns of B are, in this order, the gradient (dim), the hoop term 1/r (if axisymmetric) and the value, as
    asked. values (kinds, A, Q) and gradients (kinds, A, Q, dim) are the reference shape functions; `kind` says
    which a cell takes (facets differ, cells are all of kind 0). tangents (kinds, dim, dim - 1) span the reference
    facet, None for cells. An element that the coordinates turn inside out gets NaN weights, which no solver
    accepts.
    """

    cells: Tensor
    coordinates: Tensor
    values: Tensor
    gradients: Tensor
    quadrature_weights: Tensor
    kind: Tensor
    orientation: Tensor
    tangents: Tensor | None
    columns: tuple[bool, bool, bool]
    axisymmetric: bool
    at_rest: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        # Made here and not on first use, which may be inside a torch.func transform that the tensors must not outlive.
        object.__setattr__(self, "at_rest", self._from_coordinates(self.coordinates, slice(None)))

    @property
    def points(self) -> int:
        return self.values.shape[-1]

    @property
    def width(self) -> int:
        gradient, hoop, value = self.columns
        return gradient * self.coordinates.shape[1] + hoop + value

    def evaluate(self, coordinates: Tensor | None, rows: Rows) -> tuple[Tensor, Tensor]:
        if coordinates is None:
            matrix, weights = self.at_rest
            return matrix[rows], weights[rows]
        return self._from_coordinates(coordinates, rows)

    def positions(self) -> Tensor:
        """The quadrature points themselves, (E, Q, dim), in metres."""
        return torch.einsum("ead,eaq->eqd", self.coordinates[self.cells], self.values[self.kind])

    def _from_coordinates(self, coordinates: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        x = coordinates[self.cells[rows]]
        one_kind = self.values.shape[0] == 1
        kind = slice(None) if one_kind else self.kind[rows]
        values, gradients = self.values[kind], self.gradients[kind]
        count, nodes, dim = x.shape
        jacobian = torch.matmul(x.mT, gradients.reshape(gradients.shape[0], nodes, -1))
        jacobian = jacobian.reshape(count, dim, self.points, dim).transpose(1, 2)
        inverted, determinant = inverse_and_determinant(jacobian)
        measure = determinant * self.orientation[rows][:, None]
        measure = torch.where(measure > 0, measure, torch.nan)
        if self.tangents is not None:
            measure = _facet_measure(jacobian @ self.tangents[kind].unsqueeze(1))
        weights = measure * self.quadrature_weights
        values = values.expand(count, nodes, self.points)
        columns = []
        if self.columns[0]:
            columns.append(torch.einsum("eaqr,eqri->eaqi", gradients.expand(count, nodes, self.points, dim), inverted))
        if self.axisymmetric:
            radius = torch.einsum("eaq,ea->eq", values, x[..., 0])
            weights = weights * (2.0 * math.pi) * radius
            if self.columns[1]:
                columns.append((values / radius[:, None]).unsqueeze(-1))
        if self.columns[2]:
            columns.append(values.unsqueeze(-1))
        return columns[0] if len(columns) == 1 else torch.cat(columns, -1), weights  # values alone take no memory


def _facet_measure(span: Tensor) -> Tensor:
    """Length or area (...) spanned by the columns of (..., dim, dim - 1)."""
    if span.shape[-2] == 2:
        return torch.linalg.vector_norm(span[..., 0], dim=-1)
    return torch.linalg.vector_norm(torch.linalg.cross(span[..., 0], span[..., 1]), dim=-1)


def cell_operator(
    mesh: CellComplex, *, gradient: bool, value: bool, axisymmetric: bool, quadrature: int | None
) -> MeshOperator:
    """B on the cells; `quadrature` is the polynomial order integrated exactly (default: enough for the columns)."""
    from skfem.quadrature import get_quadrature

    order = quadrature if quadrature is not None else _default_order(mesh, value or axisymmetric)
    points, weights = get_quadrature(mesh.element, order)
    values, gradients = reference_shapes(mesh.element, points)
    count = mesh.cells.shape[0]
    return _operator(
        mesh,
        slice(None),
        values[None],
        gradients[None],
        torch.from_numpy(weights),
        torch.zeros(1, dtype=torch.int64).expand(count),
        None,
        (gradient, axisymmetric and gradient, value),
        axisymmetric,
    )


def facet_operator(mesh: CellComplex, facets: Facets, *, axisymmetric: bool, quadrature: int | None) -> MeshOperator:
    """B of values on facets, seen from the cells that they belong to."""
    from skfem.quadrature import get_quadrature

    domain = mesh.element.refdom
    points, weights = get_quadrature(domain.brefdom, quadrature if quadrature is not None else 2 * mesh.degree + 1)
    spans = [_facet_span(domain.p.T[corners]) for corners in domain.facets]
    shapes = [reference_shapes(mesh.element, origin[:, None] + span @ points) for origin, span in spans]
    return _operator(
        mesh,
        torch.from_numpy(facets.cells),
        torch.stack([value for value, _ in shapes]),
        torch.stack([gradient for _, gradient in shapes]),
        torch.from_numpy(weights),
        torch.from_numpy(facets.local).long(),
        torch.stack([torch.from_numpy(span.astype(float)) for _, span in spans]),
        (False, False, True),
        axisymmetric,
    )


def _facet_span(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first corner of a reference facet (dim,), and its edges from there (dim, dim - 1)."""
    edges = corners[1:] - corners[0]
    if len(edges) == 3:
        edges = edges[np.argsort(np.linalg.norm(edges, axis=1))[:2]]
    return corners[0], edges.T


def _operator(
    mesh: CellComplex,
    owner: Tensor | slice,
    values: Tensor,
    gradients: Tensor,
    weights: Tensor,
    kind: Tensor,
    tangents: Tensor | None,
    columns: tuple[bool, bool, bool],
    axisymmetric: bool,
) -> MeshOperator:
    cells = mesh.cells[owner]
    x = mesh.coordinates.detach()
    middle = reference_shapes(mesh.element, mesh.element.refdom.p.mean(1, keepdims=True))[1][:, 0]
    orientation = torch.sign(torch.linalg.det(x[cells].mT @ middle))
    if axisymmetric and bool((x[:, 0] < 0).any()):
        raise InputError("axisymmetric mesh: the first coordinate is the radius and must not be negative")
    return MeshOperator(
        cells,
        x,
        values,
        gradients,
        weights,
        kind,
        orientation,
        tangents,
        columns,
        axisymmetric,
    )


def _default_order(mesh: CellComplex, with_values: bool) -> int:
    if mesh.shape.tensor_product:
        return 2 * mesh.degree + 1
    return 2 * mesh.degree if with_values else max(1, 2 * (mesh.degree - 1))
