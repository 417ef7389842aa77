"""Nodes that lie on a facet of a cell without belonging to it: found, and tied to the facet's own nodes."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from bilevel.report import InputError
from physics.discretisation.cells import CellComplex
from physics.discretisation.constraints import Affine
from physics.discretisation.point_location import outside, reference_positions
from physics.discretisation.reference_cells import reference_shapes

ON_FACET = 1e-7
"""How far from a facet, in units of its cell, a node counts as lying on it."""


def hanging_nodes(mesh: CellComplex) -> tuple[np.ndarray, np.ndarray]:
    """The nodes (H,) that hang, and the cells (H,) on whose facets they lie.

    Only facets of one cell are looked at: the others are joined on both sides.
    """
    facets = mesh.exterior
    nodes = mesh.nodes_of(facets)
    middle = mesh.facet_midpoints(facets)
    cells = mesh.cells.numpy()
    reach = np.ptp(mesh.positions[cells[facets.cells]], axis=1).max(1)
    near = cKDTree(mesh.positions[nodes]).query_ball_point(middle, reach)
    place = np.repeat(np.arange(len(middle)), [len(hits) for hits in near])
    candidate = nodes[np.concatenate([np.asarray(hits, dtype=np.int64) for hits in near])]
    away = np.abs(mesh.positions[candidate] - middle[place])
    foreign = (away <= _half_widths(mesh)[place] + ON_FACET * reach[place, None]).all(1)
    foreign &= (cells[facets.cells[place]] != candidate[:, None]).all(1)
    place, candidate = place[foreign], candidate[foreign]
    owner = facets.cells[place]
    if not len(owner):
        return candidate, owner
    position = reference_positions(mesh, mesh.positions[cells[owner]], mesh.positions[candidate])
    hangs = (outside(mesh, position) < ON_FACET) & ~_at_a_node(mesh, position)
    chosen, first = np.unique(candidate[hangs], return_index=True)
    return chosen, owner[hangs][first]


def require_joined(mesh: CellComplex) -> None:
    """Raise InputError, which names one and the cure, where nodes hang."""
    nodes, cells = hanging_nodes(mesh)
    if len(nodes):
        raise InputError(
            f"mesh: node {nodes[0]} hangs: it lies on a facet of element {cells[0]} and does not belong to it "
            f"({len(nodes)} such nodes), so the mesh is open there; tie it by `mesh.hanging_ties(components)` among the "
            "constraints and say hanging=True where the mesh is made"
        )


def hanging_ties(mesh: CellComplex, components: int) -> list[Affine]:
    """Constraints that make hanging nodes follow the cells on whose facets they lie; one a node and component."""
    nodes, owner = hanging_nodes(mesh)
    cells = mesh.cells.numpy()[owner]
    position = reference_positions(mesh, mesh.positions[cells], mesh.positions[nodes])
    weights = reference_shapes(mesh.element, position.T)[0].numpy().T
    return [
        Affine(
            f"hanging {node}.{k}",
            (int(node), k),
            [(int(m), k, float(w)) for m, w in zip(own, row) if abs(w) > ON_FACET],
        )
        for node, own, row in zip(nodes, cells, weights)
        for k in range(components)
    ]


def _half_widths(mesh: CellComplex) -> np.ndarray:
    """How far the nodes of each exterior facet lie from its middle (F, dim), along each axis."""
    facets, cells = mesh.exterior, mesh.cells.numpy()
    half = np.empty((len(facets.cells), mesh.dim))
    for f, on in enumerate(mesh.facet_nodes):
        here = facets.local == f
        x = mesh.positions[cells[facets.cells[here]][:, on]]
        half[here] = np.abs(x - x.mean(1, keepdims=True)).max(1)
    return half


def _at_a_node(mesh: CellComplex, position: np.ndarray) -> np.ndarray:
    """Whether reference positions (P, dim) are those of the cell's own nodes: coincident nodes do not hang."""
    distance = np.linalg.norm(position[:, None] - mesh.element.doflocs[None], axis=-1)
    return distance.min(1) < ON_FACET
