"""Mesh files: each is read whole - measure, groups, a linear patch - or refused in one true sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

from bilevel.report import InputError
from physics.discretisation import Mesh, Shape, box, read_mesh, rectangle
from physics.discretisation.reference_cells import (
    CORNERS,
    EDGES,
    VTK_NAMES,
    element_of,
    element_order,
    node_positions,
)

KINDS = list(VTK_NAMES)
FACETS = {Shape.TRIANGLE: "line", Shape.QUADRILATERAL: "line", Shape.TETRAHEDRON: "triangle", Shape.HEXAHEDRON: "quad"}


def made(shape: Shape, nodes: int) -> Mesh:
    """A unit square or cube of a few slightly distorted cells of one kind."""
    element = element_of(shape, nodes)
    plane = len(CORNERS[shape][0]) == 2
    mesh = rectangle(2, 2, shape=shape, element=element) if plane else box(2, 2, 1, shape=shape, element=element)
    x = mesh.coordinates
    inside = (x * (1 - x)).prod(1, keepdim=True)
    return mesh.moved(x + 0.3 * inside * torch.sin(5.0 * x.flip(-1) + 1.0))


def as_file(mesh: Mesh, path: Path, scramble: bool = False, **options: Any) -> Path:
    """Written by meshio with physical groups: two halves of cells, the left boundary, the first node."""
    nodes = mesh.cells.shape[1]
    cells = mesh.cells.numpy()[:, np.argsort(element_order(mesh.element, node_positions(mesh.shape, nodes)))]
    if scramble:  # the middles of edges in another order, as Abaqus and Exodus have them
        corners = len(CORNERS[mesh.shape])
        last = corners + len(EDGES[mesh.shape])
        cells = np.concatenate((cells[:, :corners], cells[:, corners:last][:, ::-1], cells[:, last:]), 1)
    left = mesh.boundary("left")
    facets = np.stack([mesh.corners[c][mesh.element.refdom.facets[f]] for c, f in zip(left.cells, left.local)])
    half = (mesh.positions[mesh.cells.numpy()].mean(1)[:, 0] > 0.5).astype(int) + 1
    points = np.pad(mesh.positions, ((0, 0), (0, 3 - mesh.dim)))
    blocks = [(VTK_NAMES[mesh.shape, nodes], cells), (FACETS[mesh.shape], facets), ("vertex", np.array([[0]]))]
    tags = [half, np.full(len(facets), 7), np.array([9])]
    names = {"west": [1, mesh.dim], "east": [2, mesh.dim], "inlet": [7, mesh.dim - 1]}
    file = meshio.Mesh(
        points,
        blocks,
        cell_data={"gmsh:physical": tags, "gmsh:geometrical": tags},
        field_data={name: np.array(value) for name, value in names.items()},
    )
    file.write(path, **options)
    return path


def require_whole(mesh: Mesh, dim: int) -> None:
    """The unit square or cube: measure, halves, left boundary, and gradients of a linear field."""
    weights = mesh.operator(quadrature=7).weights()  # exact for curved cells too
    assert float(weights.sum()) == pytest.approx(1.0, rel=1e-12)
    halves = [float(weights[mesh.region(name)].sum()) for name in ("west", "east")]
    assert sum(halves) == pytest.approx(1.0, rel=1e-12)
    assert float(mesh.boundary_operator("inlet").weights().sum()) == pytest.approx(1.0, rel=1e-12)
    slope = torch.arange(1.0, 1.0 + dim)
    assert (mesh.operator().apply(mesh.coordinates @ slope[:, None]) - slope).abs().max() < 1e-11
    assert mesh.coordinates[mesh.nodes_on("9")].tolist() == [[0.0] * dim]


@pytest.mark.parametrize("scramble", [False, True])
@pytest.mark.parametrize(("shape", "nodes"), KINDS)
def test_gmsh_files_are_read_whole_in_any_order_of_middles(
    shape: Shape, nodes: int, scramble: bool, tmp_path: Path
) -> None:
    mesh = made(shape, nodes)
    found = read_mesh(as_file(mesh, tmp_path / "mesh.msh", scramble, file_format="gmsh22"))
    assert found.cells.shape == mesh.cells.shape
    require_whole(found, mesh.dim)


GMSH41 = """$MeshFormat
4.1 0 8
$EndMeshFormat
$PhysicalNames
3
1 7 "inlet"
2 1 "all"
2 2 "east"
$EndPhysicalNames
$Entities
0 1 2 0
1 0 0 0 0 1 0 1 7 0
1 0 0 0 1 1 0 1 1 0
2 1 0 0 2 1 0 2 1 2 0
$EndEntities
$Nodes
1 6 1 6
2 1 0 6
1
2
3
4
5
6
0 0 0
1 0 0
2 0 0
0 1 0
1 1 0
2 1 0
$EndNodes
$Elements
3 3 1 3
1 1 1 1
1 1 4
2 1 3 1
2 1 2 5 4
2 2 3 1
3 2 3 6 5
$EndElements
"""


def test_a_cell_in_two_groups_is_in_both(tmp_path: Path) -> None:
    (tmp_path / "two.msh").write_text(GMSH41)
    mesh = read_mesh(tmp_path / "two.msh")
    assert {name: cells.tolist() for name, cells in mesh.regions.items()} == {"all": [0, 1], "east": [1]}
    assert mesh.nodes_on("inlet").tolist() == [0, 3]


@pytest.mark.parametrize(("shape", "nodes"), [(shape, len(corners)) for shape, corners in CORNERS.items()])
def test_linear_cells_are_made_quadratic_with_their_groups(shape: Shape, nodes: int, tmp_path: Path) -> None:
    mesh = made(shape, nodes)
    found = read_mesh(as_file(mesh, tmp_path / "mesh.msh", file_format="gmsh22"), order=2)
    assert found.degree == 2
    require_whole(found, mesh.dim)


def test_vtu_keeps_groups_by_number(tmp_path: Path) -> None:
    mesh = made(Shape.TRIANGLE, 6)
    found = read_mesh(as_file(mesh, tmp_path / "mesh.vtu"))
    areas = [float(found.operator().weights()[found.region(name)].sum()) for name in ("1", "2")]
    assert sum(areas) == pytest.approx(1.0, rel=1e-12)
    assert float(found.boundary_operator("7").weights().sum()) == pytest.approx(1.0, rel=1e-12)


ABAQUS = """*NODE
1, 0.0, 0.0, 0.0
2, 1.0, 0.0, 0.0
3, 2.0, 0.0, 0.0
4, 0.0, 1.0, 0.0
5, 1.0, 1.0, 0.0
6, 2.0, 1.0, 0.0
*ELEMENT, TYPE=CPS4, ELSET=plate
1, 1, 2, 5, 4
2, 2, 3, 6, 5
*ELSET, ELSET=right
2
*NSET, NSET=clamped
1, 4
"""


def test_abaqus_sets_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "plate.inp").write_text(ABAQUS)
    mesh = read_mesh(tmp_path / "plate.inp")
    assert float(mesh.operator().weights().sum()) == pytest.approx(2.0)
    assert {name: cells.tolist() for name, cells in mesh.regions.items()} == {"plate": [0, 1], "right": [1]}
    assert mesh.nodes_on("clamped").tolist() == [0, 3]


def write(path: Path, points: Any, *blocks: tuple[str, Any], **rest: Any) -> Path:
    meshio.Mesh(np.asarray(points, dtype=float), [(kind, np.asarray(cells)) for kind, cells in blocks], **rest).write(
        path
    )
    return path


SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]


def grid(n: int) -> tuple[np.ndarray, list[list[int]]]:
    points = np.array([[i, j, 0.0] for j in range(n + 1) for i in range(n + 1)]) / n
    quads = [[a := j * (n + 1) + i, a + 1, a + n + 2, a + n + 1] for j in range(n) for i in range(n)]
    return points, quads


def test_a_quadrilateral_that_is_split_is_not_lost(tmp_path: Path) -> None:
    points, quads = grid(3)
    middle = quads.pop(4)
    split = [[middle[0], middle[1], middle[2]], [middle[0], middle[2], middle[3]]]
    path = write(tmp_path / "mixed.vtu", points, ("quad", quads), ("triangle", split))
    with pytest.raises(InputError, match=r"8 quad and 2 triangle cells; .*first triangle is around \(0\.5[0-9]*, 0\.4"):
        read_mesh(path)


@pytest.mark.parametrize(
    ("points", "blocks", "message"),
    [
        (
            [*SQUARE, [0, 0, 1], [1, 0, 1], [0, 1, 1]],
            [("wedge", [[0, 1, 3, 4, 5, 6]])],
            "1 wedge cells; cells known are",
        ),
        ([*SQUARE, [0.5, 0.5, 1]], [("pyramid", [[0, 1, 2, 3, 4]])], "1 pyramid cells"),
        ([[0, 0, 0], [1, 0, 0]], [("line", [[0, 1]])], "no cells of two or three dimensions"),
        ([[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0.5]], [("triangle", [[0, 1, 2], [0, 2, 3]])], "a surface in space"),
        ([[0, 3, 0], [1, 3, 0], [1, 3, 1]], [("triangle", [[0, 1, 2]])], "a plane xz, not xy; read it with plane='xz'"),
        (
            [*SQUARE, [1, 0, 0], [2, 0, 0], [2, 1, 0], [1, 1, 0]],
            [("quad", [[0, 1, 2, 3], [4, 5, 6, 7]])],
            "2 such pairs",
        ),
        ([*SQUARE, [2, 0.5, 0]], [("triangle", [[0, 1, 2], [0, 2, 3], [0, 2, 4]])], "more than two elements|same side"),
        ([[0, 0, 0], [np.nan, 0, 0], [1, 1, 0]], [("triangle", [[0, 1, 2]])], "node 1 .* NaN"),
    ],
)
def test_what_cannot_be_taken_whole_is_refused(points: Any, blocks: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.vtu", points, *blocks)
    with pytest.raises(InputError, match=message) as caught:
        read_mesh(path)
    assert "\n" not in str(caught.value)
    assert "odd.vtu" in str(caught.value)


def test_a_vertical_section(tmp_path: Path) -> None:
    path = write(tmp_path / "section.vtu", [[0, 3, 0], [2, 3, 0], [2, 3, 1], [0, 3, 1]], ("quad", [[0, 1, 2, 3]]))
    mesh = read_mesh(path, plane="xz")
    assert mesh.coordinates.amax(0).tolist() == [2.0, 1.0]


def test_coincident_nodes_are_merged_or_kept(tmp_path: Path) -> None:
    points = [*SQUARE, [1, 0, 0], [2, 0, 0], [2, 1, 0], [1, 1, 0]]
    path = write(tmp_path / "two.vtu", points, ("quad", [[0, 1, 2, 3], [4, 5, 6, 7]]))
    assert len(read_mesh(path, coincident="merge").coordinates) == 6
    assert len(read_mesh(path, coincident="keep").coordinates) == 8


def test_cells_listed_twice_and_loose_points(tmp_path: Path) -> None:
    data = {"gmsh:physical": [np.array([1, 2, 2])], "gmsh:geometrical": [np.array([1, 1, 1])]}
    cells = [[0, 1, 2], [0, 1, 2], [0, 2, 3]]
    path = tmp_path / "twice.msh"
    file = meshio.Mesh(np.array([*SQUARE, [9.0, 9.0, 0.0]]), [("triangle", np.array(cells))], cell_data=data)
    file.write(path, file_format="gmsh22")
    mesh = read_mesh(path)
    assert float(mesh.operator().weights().sum()) == pytest.approx(1.0)
    assert {name: own.tolist() for name, own in mesh.regions.items()} == {"1": [0], "2": [0, 1]}
    assert mesh.notes == ("1 point(s) of the file belong to no cell and were left out",)


def test_a_group_of_facets_that_no_cell_has_is_refused(tmp_path: Path) -> None:
    data = {"gmsh:physical": [np.array([1, 1]), np.array([5])]}
    path = write(
        tmp_path / "loose.vtu",
        SQUARE,
        ("triangle", [[0, 1, 2], [0, 2, 3]]),
        ("line", [[1, 3]]),
        cell_data=data,
    )
    with pytest.raises(InputError, match="group '5': 1 of 1 facets belong to no cell"):
        read_mesh(path)


def test_fields_that_are_left_out_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "f.vtu", SQUARE, ("quad", [[0, 1, 2, 3]]), point_data={"head": np.ones(4)})
    assert read_mesh(path).notes == ("fields of the file were left out: head",)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.msh", "rubbish"), ("a.vtu", "<VTK"), ("a.unknown", "x"), ("a.inp", "*ELEMENT, TYPE=C3D8\n1,2")],
)
def test_unreadable_files_are_one_sentence(
    name: str, content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="could not be read") as caught:
        read_mesh(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""
