"""Shape functions made on demand against those that are kept."""

import pytest
import torch

from physics.cell_shapes import AffineShapes, StoredShapes
from physics.mesh import Mesh, Shape, box, rectangle

MESHES = {
    "triangles": lambda: rectangle(3, 2, (1.5, 0.7), Shape.TRIANGLE),
    "quadrilaterals": lambda: rectangle(3, 2, (1.5, 0.7)),
    "quadratic triangles": lambda: rectangle(2, 2, (1.5, 0.7), Shape.TRIANGLE, order=2),
    "tetrahedra": lambda: box(2, 2, 1, (1.5, 0.7, 2.0), Shape.TETRAHEDRON),
    "hexahedra": lambda: box(2, 3, 1, (1.5, 0.7, 2.0)),
}


def sheared(mesh: Mesh) -> Mesh:
    """An affine image, in which no cell is aligned with the axes."""
    generator = torch.Generator().manual_seed(0)
    map = torch.eye(mesh.dim, dtype=torch.float64)
    map = map + 0.4 * torch.rand(map.shape, generator=generator, dtype=torch.float64)
    return mesh.moved(mesh.coordinates @ map + 3.0)


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize(("gradient", "value"), [(True, False), (False, True), (True, True)])
def test_shapes_of_affine_cells_are_those_of_their_coordinates(monkeypatch, name, gradient, value) -> None:
    mesh = sheared(MESHES[name]())
    kept = mesh.operator(gradient=gradient, value=value)
    monkeypatch.setattr("physics.mesh_operator.KEPT_UP_TO", 0)
    monkeypatch.setattr("physics.mesh_operator.AT_ONCE", 2)
    made = mesh.operator(gradient=gradient, value=value)
    assert isinstance(kept.at_rest, StoredShapes)
    assert isinstance(made.at_rest, AffineShapes)
    for rows in (slice(None), slice(1, 3)):
        for one, other in zip(made.evaluate(None, rows), kept.evaluate(None, rows)):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_distorted_cells_are_kept(monkeypatch) -> None:
    monkeypatch.setattr("physics.mesh_operator.KEPT_UP_TO", 0)
    mesh = rectangle(200, 200)  # cells are 1 / 40000 of the mesh: a small one must be judged by its own size
    x = mesh.coordinates.clone()
    x[mesh.nodes_where(lambda x: (abs(x - 0.5) < 1e-3).all(1))] += 1e-8
    assert isinstance(mesh.operator().at_rest, AffineShapes)
    assert isinstance(mesh.moved(x).operator().at_rest, StoredShapes)
