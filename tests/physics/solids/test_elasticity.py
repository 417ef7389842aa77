"""Linear elasticity: patch tests, manufactured solutions, Cook's membrane, and the kinematic assumptions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skfem
import torch
from torch import Tensor

import bilevel
import physics.discretisation as meshes
from bilevel.report import InputError
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.kinematics import Kinematics, Strain
from physics.constitutive.lame import LameParameters
from physics.discretisation import Mesh, Shape
from physics.discretisation.constraints import Dirichlet
from physics.solids.loads import BodyForce, NodalForce, Traction
from physics.solids.solid import Solid

E_NU = {"youngs_modulus": torch.tensor(3.0), "poissons_ratio": torch.tensor(0.3)}
ELEMENTS = [(shape, order, None) for shape in Shape for order in (1, 2)] + [
    (Shape.QUADRILATERAL, 2, skfem.ElementQuadS2())
]


def distorted(shape: Shape, order: int, element: object, size: float = 0.08) -> Mesh:
    """A small mesh whose inner corners are moved; edges stay straight, so that every element passes the patch test."""
    plane = shape in (Shape.TRIANGLE, Shape.QUADRILATERAL)
    flat = meshes.rectangle(3, 3, shape=shape) if plane else meshes.box(2, 2, 2, shape=shape)
    x = flat.coordinates
    bubble = torch.sin(math.pi * x).prod(1, keepdim=True)
    moved = x + size * bubble * torch.cos(5.0 * x.flip(-1) + torch.arange(x.shape[1]))
    kinds = {
        Shape.TRIANGLE: skfem.MeshTri,
        Shape.QUADRILATERAL: skfem.MeshQuad,
        Shape.TETRAHEDRON: skfem.MeshTet,
        Shape.HEXAHEDRON: skfem.MeshHex,
    }
    mesh = kinds[shape](moved.numpy().T.copy(), flat.cells.numpy().T.copy())
    return Mesh.from_skfem(mesh, order, element)


def boundary(mesh: Mesh) -> Tensor:
    return mesh.with_boundary("all", lambda x: np.ones(len(x), dtype=bool)).nodes_on("all")


def solve(solid: Solid, params: dict[str, object], relative: float = 1e-10) -> Tensor:
    solver = bilevel.Newton(tolerance=bilevel.Tolerance(relative))
    return solid.expand(bilevel.argmin(solid, solid.start(), params, solver=solver).u, params)


@pytest.mark.parametrize("mean_dilatation", [False, True])
@pytest.mark.parametrize(("shape", "order", "element"), ELEMENTS)
def test_patch(shape: Shape, order: int, element: object, mean_dilatation: bool) -> None:
    mesh = distorted(shape, order, element)
    slope = torch.tensor([[1.0, 0.3, -0.2], [0.4, -0.5, 0.1], [0.2, 0.6, 0.7]])[: mesh.dim, : mesh.dim]
    exact = mesh.coordinates @ slope.mT
    nodes = boundary(mesh)
    kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else None
    edge = [Dirichlet("edge", nodes, value=exact[nodes])]
    solid = Solid(mesh, LinearElastic(), kinematics, edge, mean_dilatation=mean_dilatation)
    params = {"material": E_NU}
    solution = bilevel.argmin(solid, solid.start(), params, solver=bilevel.Newton(tolerance=bilevel.Tolerance(1e-14)))
    assert (solid.expand(solution.u, params) - exact).abs().max() < 1e-11
    assert (
        solid.strain(solution.u, params)[..., : mesh.dim, : mesh.dim] - 0.5 * (slope + slope.mT)
    ).abs().max() < 1e-11


def manufactured(x: Tensor) -> Tensor:
    """A smooth displacement (..., dim) that is not zero anywhere on the boundary by accident."""
    s = x.sum(-1)
    return torch.stack([torch.sin(1.3 * s + i) * torch.cos(0.9 * x[..., i]) for i in range(x.shape[-1])], -1)


def body_force(x: Tensor, constants: LameParameters) -> Tensor:
    """-div sigma of the manufactured displacement at points (P, dim), by torch.func."""
    identity = torch.eye(x.shape[-1])

    def sigma(point: Tensor) -> Tensor:
        h = torch.func.jacfwd(manufactured)(point)
        return constants.mu * (h + h.mT) + constants.lame_lambda * torch.trace(h) * identity

    return -torch.vmap(lambda p: torch.einsum("ijj->i", torch.func.jacfwd(sigma)(p)))(x)


def l2_error(n: int, shape: Shape, order: int) -> float:
    mesh = meshes.rectangle(n, n, shape=shape, order=order) if shape in (Shape.TRIANGLE, Shape.QUADRILATERAL) else None
    mesh = mesh or meshes.box(n, n, n, shape=shape, order=order)
    nodes = boundary(mesh)
    edge = [Dirichlet("edge", nodes, value=manufactured(mesh.coordinates[nodes]))]
    kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else None
    load = BodyForce("weight", quadrature=2 * order + 2)
    solid = Solid(mesh, LinearElastic(), kinematics, edge, [load])
    points = mesh.operator(gradient=False, value=True, quadrature=2 * order + 2)
    x = points.positions()
    constants = LameParameters.from_young(3.0, 0.3)
    force = body_force(x.reshape(-1, mesh.dim), constants).reshape(x.shape)
    field = solve(solid, {"material": E_NU, "weight": force})
    error = points.apply(field)[..., 0] - manufactured(x)
    return float((points.weights() * (error**2).sum(-1)).sum().sqrt())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", list(Shape))
def test_manufactured_solution_converges(shape: Shape, order: int) -> None:
    plane = shape in (Shape.TRIANGLE, Shape.QUADRILATERAL)
    sizes = (8, 16) if plane else ((4, 8) if order == 1 else (3, 6))
    coarse, fine = (l2_error(n, shape, order) for n in sizes)
    rate = math.log2(coarse / fine)
    assert rate >= (1.9 if order == 1 else 2.8), f"L2 rate {rate:.3f}"


def cook(n: int, order: int, shape: Shape = Shape.QUADRILATERAL) -> Mesh:
    unit = meshes.rectangle(n, n, shape=shape, order=order)
    s, t = unit.coordinates.unbind(1)
    return unit.moved(torch.stack((48.0 * s, 44.0 * (s + t) - 28.0 * s * t), 1))


@pytest.mark.parametrize(("shape", "n"), [(Shape.QUADRILATERAL, 32), (Shape.TRIANGLE, 64)])
def test_cooks_membrane_in_plane_stress(shape: Shape, n: int) -> None:
    mesh = cook(n, 2, shape)
    load = [Traction("shear", "right")]
    solid = Solid(mesh, LinearElastic(), Kinematics.PLANE_STRESS, [mesh.fixed("left")], load)
    material = {"youngs_modulus": torch.tensor(1.0), "poissons_ratio": torch.tensor(1.0 / 3.0)}
    field = solve(solid, {"material": material, "shear": torch.tensor([0.0, 1.0 / 16.0])})
    tip = mesh.locate([[48.0, 52.0]], tolerance=1e-9)(field)[0, 1]
    assert tip == pytest.approx(23.965, abs=0.01)


def nearly_incompressible_tip(n: int, order: int, mean_dilatation: bool) -> float:
    """Cook's membrane in plane strain, E = 70, nu = 0.4999, a shear force of 100: the tip's displacement."""
    mesh = cook(n, order)
    load = [Traction("shear", "right")]
    fixed = [mesh.fixed("left")]
    solid = Solid(mesh, LinearElastic(), Kinematics.PLANE_STRAIN, fixed, load, mean_dilatation=mean_dilatation)
    material = {"youngs_modulus": torch.tensor(70.0), "poissons_ratio": torch.tensor(0.4999)}
    field = solve(solid, {"material": material, "shear": torch.tensor([0.0, 6.25])}, relative=1e-8)
    return float(mesh.locate([[48.0, 60.0]], tolerance=1e-9)(field)[0, 1])


def test_mean_dilatation_does_not_lock() -> None:
    fine = nearly_incompressible_tip(24, 2, mean_dilatation=True)
    free = nearly_incompressible_tip(16, 1, mean_dilatation=True)
    locked = nearly_incompressible_tip(16, 1, mean_dilatation=False)
    assert free == pytest.approx(fine, rel=0.04)
    assert locked < 0.5 * fine


def test_thick_cylinder_in_axisymmetry_matches_lame() -> None:
    inner, outer, pressure = 1.0, 2.0, 0.5
    mesh = meshes.rectangle(12, 2, (outer - inner, 0.4), order=2)
    mesh = mesh.moved(mesh.coordinates + torch.tensor([inner, 0.0]))
    ends = [mesh.fixed("bottom", [1]), mesh.fixed("top", [1])]
    solid = Solid(mesh, LinearElastic(), Kinematics.AXISYMMETRIC, ends, [Traction("pressure", "left")])
    field = solve(solid, {"material": E_NU, "pressure": torch.tensor([pressure, 0.0])})
    r = mesh.coordinates[:, 0]
    young, nu = 3.0, 0.3
    factor = (1.0 + nu) * pressure * inner**2 / (young * (outer**2 - inner**2))
    exact = factor * ((1.0 - 2.0 * nu) * r + outer**2 / r)
    assert (field[:, 0] - exact).abs().max() < 2e-5 * exact.max()


def test_plane_stress_is_the_free_third_direction() -> None:
    mesh = meshes.rectangle(2, 2)
    slides = [mesh.fixed("left", [0]), mesh.fixed("bottom", [1])]
    solid = Solid(mesh, LinearElastic(), Kinematics.PLANE_STRESS, slides, [Traction("pull", "right")])
    field = solve(solid, {"material": E_NU, "pull": torch.tensor([0.6, 0.0])})
    assert (field - mesh.coordinates * torch.tensor([0.2, -0.06])).abs().max() < 1e-12


def test_reactions_balance_the_loads() -> None:
    mesh = meshes.box(2, 2, 2)
    solid = Solid(
        mesh,
        LinearElastic(),
        None,
        [mesh.fixed("left")],
        [Traction("pull", "right"), BodyForce("weight"), NodalForce("nodes")],
    )
    forces = torch.randn(len(mesh.coordinates), 3)
    params = {
        "material": E_NU,
        "pull": torch.tensor([1.0, 2.0, 3.0]),
        "weight": torch.tensor([0.0, 0.0, -2.0]),
        "nodes": forces,
    }
    reactions = solid.nodal_forces(solve(solid, params), params)
    total = torch.tensor([1.0, 2.0, 1.0]) + forces.sum(0)
    assert (reactions.sum(0) + total).abs().max() < 1e-8


@pytest.mark.parametrize("supports", [[], ["left"]])
def test_a_body_that_can_move_is_refused(supports: list[str]) -> None:
    mesh = meshes.rectangle(2, 2)
    held = [mesh.fixed(name, [0]) for name in supports]
    with pytest.raises(InputError, match="cost no energy and no constraint prevents them"):
        Solid(mesh, LinearElastic(), Kinematics.PLANE_STRESS, held)


def test_a_declared_floating_body_is_solved_up_to_rigid_motion() -> None:
    mesh = meshes.rectangle(3, 2)
    loads = [Traction("right", "right"), Traction("left", "left")]
    solid = Solid(mesh, LinearElastic(), Kinematics.PLANE_STRESS, [], loads, floating=True)
    pull = {"right": torch.tensor([0.6, 0.0]), "left": torch.tensor([-0.6, 0.0])}
    solution = bilevel.argmin(solid, solid.start(), {"material": E_NU, **pull})
    strain = solid.strain(solution.u, {"material": E_NU})
    assert (strain - torch.diag(torch.tensor([0.2, -0.06]))).abs().max() < 1e-8


def test_a_users_density_of_the_small_strain_is_one_function() -> None:
    def psi(strain: Tensor, params: dict[str, Tensor]) -> Tensor:
        trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
        return params["mu"] * (strain**2).sum((-2, -1)) + 0.5 * params["lame_lambda"] * trace**2

    mesh = meshes.box(2, 1, 1)
    lame = LameParameters.from_young(3.0, 0.3)
    params = {"mu": torch.tensor(lame.mu), "lame_lambda": torch.tensor(lame.lame_lambda)}
    fields = []
    for material, strain in ((psi, Strain.SMALL), (LinearElastic(), None)):
        solid = Solid(mesh, material, None, [mesh.fixed("left")], [Traction("pull", "right")], strain=strain)
        fields.append(solve(solid, {"material": params, "pull": torch.tensor([0.1, 0.2, 0.0])}))
    assert (fields[0] - fields[1]).abs().max() < 1e-12


def test_lame_conversions_agree_and_bad_pairs_are_refused() -> None:
    lame = LameParameters.from_young(210.0, 0.28)
    again = LameParameters.from_bulk(lame.bulk_modulus, lame.mu)
    assert again.lame_lambda == pytest.approx(lame.lame_lambda)
    assert (again.youngs_modulus, again.poissons_ratio) == pytest.approx((210.0, 0.28))
    with pytest.raises(InputError, match="expected mu and lame_lambda, or"):
        LameParameters.of({"mu": 1.0, "nu": 0.3})


@pytest.mark.parametrize(
    ("kinematics", "message"),
    [(None, "needs its kinematics"), (Kinematics.THREE_DIMENSIONAL, "needs a mesh in 3 dimensions")],
)
def test_kinematics_must_fit_the_mesh(kinematics: Kinematics | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Solid(meshes.rectangle(1, 1), LinearElastic(), kinematics)
