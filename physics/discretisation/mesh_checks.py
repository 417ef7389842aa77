"""What must hold of a mesh before anything is computed on it; each fault is one sentence."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex
from physics.discretisation.hanging_nodes import require_joined
from physics.discretisation.reference_cells import reference_shapes

FLAT = 1e-10
"""An element whose Jacobian determinant is below this fraction of its largest is flat."""


def check_mesh(mesh: CellComplex, hanging: bool = False) -> None:
    """Raise InputError for nodes of no element, inverted or flat elements and, unless nodes may hang, hanging and dangling ones."""
    x, cells = mesh.positions, mesh.cells.numpy()
    if not np.isfinite(x).all():
        raise InputError(
            f"mesh: node {int(np.flatnonzero(~np.isfinite(x).all(1))[0])} has coordinates that are NaN or infinite"
        )
    unused = np.setdiff1d(np.arange(len(x)), cells)
    if len(unused):
        raise InputError(f"mesh: node {unused[0]} belongs to no element ({len(unused)} such nodes); remove them")
    _check_jacobians(mesh, x, cells)
    _check_overlap(mesh, x, cells)
    if not hanging:
        require_joined(mesh)
        _check_attachment(mesh, cells)


def _check_jacobians(mesh: CellComplex, x: np.ndarray, cells: np.ndarray) -> None:
    gradients = reference_shapes(mesh.element, mesh.element.doflocs.T)[1].numpy()
    determinant = np.linalg.det(np.einsum("eai,aqj->eqij", x[cells], gradients))
    largest = np.abs(determinant).max(1)
    orientation = np.sign(determinant.mean(1))
    worst = (determinant * orientation[:, None]).min(1)
    size = np.prod(np.ptp(x[cells], axis=1) + 1e-300, axis=1)
    bad = (worst < FLAT * largest) | (largest < FLAT * size)
    if bad.any():
        e = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"mesh: element {e} (nodes {cells[e].tolist()}) is inverted or flat ({int(bad.sum())} such elements); "
            "check its corners and their order"
        )


def _check_overlap(mesh: CellComplex, x: np.ndarray, cells: np.ndarray) -> None:
    """Two elements that share a facet must lie on either side of it."""
    first, second = mesh.interior
    if not len(first.cells):
        return
    centre = x[cells].mean(1)
    corner = np.empty((len(first.cells), mesh.dim, mesh.dim))
    for f, facet in enumerate(mesh.element.refdom.facets):
        here = first.local == f
        corner[here] = x[mesh.corners[first.cells[here]][:, facet[: mesh.dim]]]
    side = [
        np.linalg.det(np.concatenate((corner[:, 1:], centre[c.cells][:, None]), 1) - corner[:, :1])
        for c in (first, second)
    ]
    bad = side[0] * side[1] >= 0
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"mesh: elements {first.cells[k]} and {second.cells[k]} lie on the same side of the facet that they share "
            f"({int(bad.sum())} such facets); one of them is inverted"
        )


def _check_attachment(mesh: CellComplex, cells: np.ndarray) -> None:
    """Elements that touch must share a facet: one that hangs on a corner or an edge only is dangling."""
    count, nodes = len(cells), int(cells.max()) + 1
    first, second = mesh.interior
    shared = sp.coo_matrix((np.ones(len(first.cells)), (first.cells, second.cells)), shape=(count, count))
    pieces, piece = connected_components(shared, directed=False)
    if pieces == 1:
        return
    touch = sp.csr_matrix(
        (np.ones(cells.size), (np.repeat(piece, cells.shape[1]), cells.ravel())), shape=(pieces, nodes)
    )
    bodies, body = connected_components(touch @ touch.T, directed=False)
    if bodies < pieces:
        crowded = np.flatnonzero(np.bincount(body)[body] > 1)
        sizes = np.bincount(piece)
        least = crowded[np.argmin(sizes[crowded])]
        e = int(np.flatnonzero(piece == least)[0])
        raise InputError(
            f"mesh: element {e} (nodes {cells[e].tolist()}) is dangling: its piece of {sizes[least]} element(s) touches "
            "the rest at a corner or an edge but shares no facet; join or remove it"
        )
