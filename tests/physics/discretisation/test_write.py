"""VTU files hold the mesh with its volume, and the fields."""

from __future__ import annotations

from pathlib import Path

import meshio
import pytest
import torch

import physics.discretisation as meshes
from bilevel.report import InputError
from physics.discretisation import Shape
from physics.discretisation.write import write_vtu


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", list(Shape))
def test_round_trip(tmp_path: Path, shape: Shape, order: int) -> None:
    plane = shape in (Shape.TRIANGLE, Shape.QUADRILATERAL)
    mesh = meshes.rectangle(2, 1, shape=shape, order=order) if plane else meshes.box(2, 1, 1, shape=shape, order=order)
    field = torch.randn_like(mesh.coordinates)
    stiffness = torch.rand(len(mesh.cells))
    read = meshio.read(write_vtu(tmp_path / "state.vtu", mesh, {"displacement": field}, {"stiffness": stiffness}))
    assert read.point_data["displacement"][:, : mesh.dim] == pytest.approx(field.numpy())
    assert read.cell_data["stiffness"][0] == pytest.approx(stiffness.numpy())
    assert read.points[:, : mesh.dim] == pytest.approx(mesh.coordinates.numpy())
    corners = {Shape.TRIANGLE: 3, Shape.QUADRILATERAL: 4, Shape.TETRAHEDRON: 4, Shape.HEXAHEDRON: 8}[shape]
    again = meshes.from_arrays(*_corners_only(read, corners, mesh.dim), shape)
    assert again.operator().weights().sum() == pytest.approx(1.0)


def _corners_only(read: meshio.Mesh, corners: int, dim: int):  # type: ignore[no-untyped-def]
    cells = read.cells[0].data[:, :corners]
    used = sorted(set(cells.ravel().tolist()))
    number = {node: k for k, node in enumerate(used)}
    return read.points[used][:, :dim], [[number[node] for node in cell] for cell in cells.tolist()]


def test_a_field_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="field 'h' has 2 rows, the mesh has 4"):
        write_vtu(tmp_path / "state.vtu", meshes.rectangle(1, 1), {"h": torch.zeros(2)})
