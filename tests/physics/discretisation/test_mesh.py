"""Meshes: measures, named boundaries, point location, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skfem
import torch

import physics.discretisation as meshes
from bilevel.report import InputError
from physics.discretisation import Mesh, Shape
from physics.discretisation.constraints import ConstraintSet

PLANE = [(shape, order) for shape in (Shape.TRIANGLE, Shape.QUADRILATERAL) for order in (1, 2)]
SPACE = [(shape, order) for shape in (Shape.TETRAHEDRON, Shape.HEXAHEDRON) for order in (1, 2)]


def distorted(mesh: Mesh, size: float = 0.02) -> Mesh:
    return mesh.moved(mesh.coordinates + size * torch.sin(7.0 * mesh.coordinates.flip(-1) + 1.0))


@pytest.mark.parametrize(("shape", "order"), PLANE)
def test_rectangle_areas_lengths_and_gradients(shape: Shape, order: int) -> None:
    mesh = meshes.rectangle(3, 2, (2.0, 1.0), shape, order)
    assert mesh.operator().weights().sum() == pytest.approx(2.0, rel=1e-12)
    lengths = {name: float(mesh.boundary_operator(name).weights().sum()) for name in mesh.boundaries}
    assert lengths == pytest.approx({"left": 1.0, "right": 1.0, "bottom": 2.0, "top": 2.0}, rel=1e-12)
    slope = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    mesh = distorted(mesh)
    state = mesh.operator(value=True).apply(mesh.coordinates @ slope)
    assert (state[..., :2] - slope.mT).abs().max() < 1e-12


@pytest.mark.parametrize(("shape", "order"), SPACE)
def test_box_volumes_areas_and_gradients(shape: Shape, order: int) -> None:
    mesh = meshes.box(2, 2, 1, (2.0, 1.0, 3.0), shape, order)
    assert mesh.operator().weights().sum() == pytest.approx(6.0, rel=1e-12)
    areas = {name: float(mesh.boundary_operator(name).weights().sum()) for name in mesh.boundaries}
    expected = {"left": 3.0, "right": 3.0, "bottom": 6.0, "top": 6.0, "front": 2.0, "back": 2.0}
    assert areas == pytest.approx(expected, rel=1e-10)
    mesh = distorted(mesh)
    slope = torch.arange(9.0).reshape(3, 3)
    assert (mesh.operator().apply(mesh.coordinates @ slope) - slope.mT).abs().max() < 1e-11


def test_curved_quadratic_mesh_of_a_disc_has_its_area() -> None:
    mesh = Mesh.from_skfem(skfem.MeshTri.init_circle(3), order=2)
    x = mesh.coordinates
    edge = torch.zeros(len(x), dtype=torch.bool)
    edge[mesh.with_boundary("rim", lambda m: np.hypot(m[:, 0], m[:, 1]) > 0.9).nodes_on("rim")] = True
    curved = mesh.moved(torch.where(edge[:, None], x / x.norm(dim=1, keepdim=True), x))
    error = [abs(float(m.operator(quadrature=4).weights().sum()) - np.pi) for m in (mesh, curved)]
    assert error[0] > 1e-2
    assert error[1] < 1e-4


def test_serendipity_and_gmsh_round_trip(tmp_path: Path) -> None:
    mesh = meshes.rectangle(2, 2, element=skfem.ElementQuadS2())
    assert mesh.cells.shape[1] == 8
    skfem.MeshTri().refined(1).save(str(tmp_path / "square.vtk"))
    assert meshes.read_mesh(tmp_path / "square.vtk", order=2).operator().weights().sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("shape", "order"), PLANE + SPACE)
def test_points_are_found_and_fields_interpolated(shape: Shape, order: int) -> None:
    make = meshes.rectangle if (shape, order) in PLANE else meshes.box
    mesh = distorted(make(*(3, 3, 2)[: 2 if make is meshes.rectangle else 3], shape=shape, order=order))  # type: ignore[operator]
    points = mesh.operator(value=True).positions().reshape(-1, mesh.dim)[::5]
    field = mesh.coordinates @ torch.ones(mesh.dim, 1) + 2.0
    values = mesh.locate(points.numpy())(field)
    assert (values - points.sum(1, keepdim=True) - 2.0).abs().max() < 1e-12


def test_points_beside_long_and_short_cells_are_found() -> None:
    grades = np.concatenate(([0.0], np.linspace(0.0, 1e-2, 101)[1:], [1.0]))
    mesh = Mesh.from_skfem(skfem.MeshQuad.init_tensor(grades, np.array([0.0, 1.0])))
    points = np.array([[0.02, 0.5], [0.99, 0.01], [5e-5, 0.99], [1.0, 1.0], [0.01, 0.3]])
    values = mesh.locate(points)(mesh.coordinates)
    assert np.abs(values.numpy() - points).max() < 1e-13


def test_a_point_that_is_nan_is_refused() -> None:
    with pytest.raises(InputError, match=r"point 1 at .* is NaN"):
        meshes.rectangle(2, 2).locate([[0.5, 0.5], [np.nan, 0.5]])


def test_a_point_outside_is_refused() -> None:
    with pytest.raises(InputError, match=r"point 1 .* outside the mesh \(1 such"):
        meshes.rectangle(2, 2).locate([[0.5, 0.5], [1.5, 0.5]])


TWO = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("points", "cells", "shape", "message"),
    [
        ([*TWO, [2, 2]], [[0, 1, 2], [1, 3, 2]], Shape.TRIANGLE, "vertex 4 belongs to no element"),
        (TWO, [[0, 1, 2], [1, 5, 2]], Shape.TRIANGLE, "names vertex 5, but there are 4"),
        (TWO, [[0, 1, 2, 3]], Shape.QUADRILATERAL, "element 0 .* is inverted or flat"),
        ([*TWO[:3], [0.2, 0.2]], [[0, 1, 2], [1, 3, 2]], Shape.TRIANGLE, "one of them is inverted"),
        ([[0, 0], [1, 0], [2, 0]], [[0, 1, 2]], Shape.TRIANGLE, "inverted or flat"),
        ([[0, np.nan], *TWO[1:]], [[0, 1, 2], [1, 3, 2]], Shape.TRIANGLE, "vertex 0 .* NaN"),
        ([*TWO, [2, 1], [2, 2]], [[0, 1, 2], [1, 3, 2], [3, 4, 5]], Shape.TRIANGLE, "element 2 .* dangling"),
    ],
)
def test_bad_meshes_are_refused_in_one_line(points: object, cells: object, shape: Shape, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        meshes.from_arrays(points, cells, shape)
    assert "\n" not in str(caught.value)


def test_unknown_boundary_names_those_that_exist() -> None:
    with pytest.raises(InputError, match="no boundary 'lid'; it has bottom, left, right, top"):
        meshes.rectangle(1, 1).boundary("lid")


def test_missing_mesh_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        meshes.read_mesh(tmp_path / "none.msh")


def test_two_values_at_one_node_are_refused_and_may_be_divided() -> None:
    mesh = meshes.rectangle(2, 2)
    both = [mesh.fixed("left", value=10.0), mesh.fixed("top", value=0.0)]
    with pytest.raises(
        InputError, match=r"'top' prescribes 0 at node \d, component 0, where another one prescribes 10"
    ):
        ConstraintSet(both, 9, 1).expand(torch.zeros(4), None)
    given = ConstraintSet(both, 9, 1).expand(torch.zeros(4), {"top": torch.tensor(10.0)})
    assert given.max() == 10.0
    divided = [both[0], mesh.fixed("top", value=0.0, without=["left"])]
    assert ConstraintSet(divided, 9, 1).expand(torch.zeros(4), None)[:, 0].unique().tolist() == [0.0, 10.0]
