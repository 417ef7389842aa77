"""Hanging nodes: found, refused, and tied so that linear fields stay exact."""

from __future__ import annotations

import pytest
import torch

import bilevel
from bilevel.report import InputError
from physics.discretisation import Mesh, Shape, from_arrays
from physics.discretisation.hanging_nodes import hanging_nodes
from physics.flow import DarcyFlow

# A large square beside two small ones: node 5 lies in the middle of the large one's right side.
POINTS = [[0, 0], [2, 0], [2, 2], [0, 2], [3, 0], [2, 1], [3, 1], [3, 2]]
CELLS = [[0, 1, 2, 3], [1, 4, 6, 5], [5, 6, 7, 2]]
CUBES = [[x, y, z] for z in (0, 2) for y in (0, 2) for x in (0, 2)]
SMALL = [[x, y, z] for z in (0, 1, 2) for y in (0, 1, 2) for x in (2, 3)]


def spatial() -> Mesh:
    """A cube of edge 2 beside eight quarters of a slab: five nodes hang on its side."""
    points = [*CUBES, *(p for p in SMALL if p not in CUBES)]
    number = {tuple(p): i for i, p in enumerate(points)}
    cell = [(0, 0, 0), (2, 0, 0), (2, 2, 0), (0, 2, 0), (0, 0, 2), (2, 0, 2), (2, 2, 2), (0, 2, 2)]
    cells = [[number[p] for p in cell]]
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
    cells += [[number[2 + a, y + b, z + c] for a, b, c in corners] for y in (0, 1) for z in (0, 1)]
    return from_arrays(points, cells, Shape.HEXAHEDRON, hanging=True)


def test_a_hanging_node_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"node 5 hangs: it lies on a facet of element 0 .*\(1 such"):
        from_arrays(POINTS, CELLS, Shape.QUADRILATERAL)


@pytest.mark.parametrize(
    ("mesh", "count"), [(from_arrays(POINTS, CELLS, Shape.QUADRILATERAL, hanging=True), 1), (spatial(), 5)]
)
def test_tied_nodes_leave_a_linear_field_exact(mesh: Mesh, count: int) -> None:
    assert len(hanging_nodes(mesh)[0]) == count
    mesh = mesh.with_boundary("west", lambda x: x[:, 0] < 1e-9).with_boundary("east", lambda x: x[:, 0] > 3 - 1e-9)
    ends = [mesh.fixed("west", value=3.0), mesh.fixed("east", value=0.0)]
    flow = DarcyFlow(mesh, [*ends, *mesh.hanging_ties()])
    params = {"flow": {"hydraulic_conductivity": torch.tensor(2.0)}}
    head = flow.expand(bilevel.argmin(flow, flow.start(), params).u, params)[:, 0]
    assert (head - (3.0 - mesh.coordinates[:, 0])).abs().max() < 1e-12
