"""Exact derivatives through the layer for solids: every kind of parameter, first and second order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bilevel
import physics.discretisation as meshes
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.elastic.ogden import Ogden
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import Shape
from physics.local.density import Density
from physics.solids.loads import BodyForce, NodalForce, Traction
from physics.solids.solid import Solid


def loaded(material: Density, *, mean_dilatation: bool = False, space: bool = False) -> tuple[Solid, dict[str, object]]:
    if space:
        mesh, kinematics = meshes.box(2, 1, 1), None
    else:
        size, order = (1, 1) if isinstance(material, Ogden) else (2, 2)
        mesh, kinematics = meshes.rectangle(size, 1, shape=Shape.TRIANGLE, order=order), Kinematics.PLANE_STRAIN
    loads = [Traction("pull", "right"), BodyForce("weight"), NodalForce("force")]
    solid = Solid(mesh, material, kinematics, [mesh.fixed("left")], loads, mean_dilatation=mean_dilatation)
    dim = mesh.dim
    params: dict[str, object] = {
        "pull": torch.tensor([0.15, 0.05, 0.03])[:dim],
        "weight": 0.05 * torch.randn(len(mesh.cells), dim),
        "force": 0.01 * torch.randn(len(mesh.coordinates), dim),
        "boundary": {"left": 0.02 * torch.randn(len(mesh.nodes_on("left")), dim)},
        "coordinates": mesh.coordinates.clone(),
    }
    if isinstance(material, Ogden):
        params["material"] = {
            "mu_1": torch.tensor(0.5),
            "alpha_1": torch.tensor(1.5),
            "mu_2": torch.tensor(-0.05),
            "alpha_2": torch.tensor(-2.0),
            "bulk_modulus": torch.tensor(3.0),
        }
    else:
        points = solid.material.operator.points
        lame = torch.tensor(2.0) if mean_dilatation else 2.0 + torch.rand(len(mesh.cells), points)
        params["material"] = {"mu": 0.5 + torch.rand(len(mesh.cells)), "lame_lambda": lame}
    return solid, params


def misfit(solid: Solid) -> Callable[[dict[str, object]], Tensor]:
    target = 0.1 * torch.randn(len(solid.mesh.coordinates), solid.mesh.dim)

    def phi(params: dict[str, object]) -> Tensor:
        solution = bilevel.argmin(solid, solid.start(), params)
        return ((solid.expand(solution.u, params) - target) ** 2).sum()

    return phi


def direction(params: dict[str, object]) -> dict[str, object]:
    """A random direction that moves nodes by less than the elements' size, so that none is turned inside out."""

    def random(value: object, name: str) -> object:
        if isinstance(value, dict):
            return {key: random(v, key) for key, v in value.items()}
        assert isinstance(value, Tensor)
        size = 0.05 if name == "coordinates" else float(value.abs().mean())
        return size * torch.randn_like(value)

    return {key: random(value, key) for key, value in params.items()}


CASES = {
    "plane": lambda: loaded(NeoHookean()),
    "space": lambda: loaded(NeoHookean(), space=True),
    "mean dilatation": lambda: loaded(NeoHookean(), mean_dilatation=True),
    "ogden": lambda: loaded(Ogden(2)),
}
LONG = {"mean dilatation", "ogden"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in LONG)) for c in CASES])
def test_gradient_in_all_parameters_at_once(case: str) -> None:
    solid, params = CASES[case]()
    check = bilevel.check_gradient(misfit(solid), params, direction=direction(params))
    assert check.order >= 1.95
    assert check.best <= 1e-6


@pytest.mark.parametrize("kind", ["material", "pull", "weight", "boundary", "coordinates"])
def test_gradient_in_each_kind_of_parameter(kind: str) -> None:
    solid, params = CASES["plane"]()
    phi = misfit(solid)
    along = direction(params)[kind]
    check = bilevel.check_gradient(lambda part: phi({**params, kind: part}), params[kind], direction=along)
    assert check.order >= 1.95
    assert check.best <= 1e-6


@pytest.mark.parametrize("case", ["plane", pytest.param("ogden", marks=pytest.mark.slow)])
def test_hessian_in_all_parameters_at_once(case: str) -> None:
    solid, params = CASES[case]()
    check = bilevel.check_hessian(misfit(solid), params, direction=direction(params))
    assert check.order >= 2.9
    assert check.best <= 1e-5


def test_jacobian_by_forward_sweeps_equals_the_one_by_adjoint_sweeps() -> None:
    solid, params = CASES["plane"]()

    def observed(material: dict[str, Tensor]) -> Tensor:
        full = {**params, "material": material}
        return solid.expand(bilevel.argmin(solid, solid.start(), full).u, full)[-5:].reshape(-1)

    forward = torch.func.jacfwd(observed)(params["material"])
    reverse = torch.func.jacrev(observed)(params["material"])
    for name in forward:
        assert (forward[name] - reverse[name]).norm() < 1e-8 * reverse[name].norm()
