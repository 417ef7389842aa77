"""Models on meshes: a specimen that agrees with its element test, quadratic global Newton, gradients, the footing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import bilevel
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.constitutive.kinematics import Kinematics
from physics.constitutive.mandel import axisymmetric
from physics.discretisation import rectangle
from physics.discretisation.constraints import Dirichlet
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march
from physics.soil.footing import bearing_capacity, footing_mesh
from physics.solids.solid import InelasticSolid

SOIL = {
    "youngs_modulus": torch.tensor(20e6),
    "poissons_ratio": torch.tensor(0.3),
    "cohesion": torch.tensor(20e3),
    "friction_angle": torch.tensor(math.radians(30.0)),
    "dilatancy_angle": torch.tensor(math.radians(10.0)),
}
WEIGHTLESS = {name: torch.tensor(v) for name, v in zip(SOIL, (1e3, 0.3, 1.0, math.radians(10), math.radians(10)))}


def specimen(squeeze: float) -> tuple[InelasticSolid, dict[str, object]]:
    """An axisymmetric triaxial specimen without cell pressure, pressed by its smooth top plate."""
    mesh = rectangle(3, 4, (0.05, 0.1))
    constraints = [mesh.fixed("bottom", [1]), mesh.fixed("left", [0]), Dirichlet("plate", mesh.nodes_on("top"), [1])]
    solid = InelasticSolid(mesh, DruckerPrager(), Kinematics.AXISYMMETRIC, constraints)
    return solid, {"material": SOIL, "begin": solid.begin(), "boundary": {"plate": torch.tensor(-squeeze * 0.1)}}


def test_specimen_agrees_with_the_element_test() -> None:
    solid, params = specimen(0.02)
    states = solid.end(solid.solve(params).u, params)["state"].flatten(0, 1)
    path = LoadStage(Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL)), torch.tensor([[-0.02, 0.0]]))
    start = axisymmetric(torch.zeros(1), torch.zeros(1))
    element = march(DruckerPrager(), SOIL, start, IncrementSchedule.of([ElementTest("element", (path,))])).states[-1, 0]
    assert -element[0].item() == pytest.approx(69282.032, rel=1e-6)
    assert (states[:, 1] - element[0]).abs().max().item() <= 1e-4
    assert states[:, [0, 2]].abs().max().item() <= 1e-4


def footing(cells: int, settlement: float) -> tuple[InelasticSolid, dict[str, object]]:
    """A footing pressed into soil that Mohr-Coulomb's law describes."""
    mesh = footing_mesh(cells)
    under = mesh.nodes_where(lambda x: (x[:, 1] > -1e-9) & (x[:, 0] < 0.5 + 1e-9))
    constraints = [
        Dirichlet("footing", under, [1]),
        mesh.fixed("bottom"),
        mesh.fixed("left", [0]),
        mesh.fixed("right", [0]),
    ]
    solid = InelasticSolid(mesh, MohrCoulomb(), Kinematics.PLANE_STRAIN, constraints, quadrature=3)
    boundary = {"footing": torch.tensor(-settlement)}
    return solid, {"material": WEIGHTLESS, "begin": solid.begin(), "boundary": boundary}


def test_global_newton_converges_quadratically_with_the_consistent_tangent() -> None:
    """A footing increment in the plastic range, from the elastic prediction: the end of the run squares the residual."""
    solid, params = footing(6, 0.004)
    history = solid.solve(params).report.history
    scaled = [r / history[0] for r in history]
    tail = [(a, b) for a, b in itertools.pairwise(scaled) if a < 1e-2]
    assert tail
    assert all(after <= 1e2 * before**2 or after < 1e-9 for before, after in tail)


def test_gradient_of_the_plate_force() -> None:
    solid, params = specimen(0.01)

    def force(scale: torch.Tensor) -> torch.Tensor:
        material = {**SOIL, "cohesion": 20e3 * scale[0], "youngs_modulus": 20e6 * scale[1]}
        given = {**params, "material": material}
        u = bilevel.root(solid, torch.zeros(solid.n), given).u
        return solid.reactions(u, given)[solid.mesh.nodes_on("top"), 1].sum()

    scale = torch.ones(2, requires_grad=True)
    value = force(scale)
    value.backward()
    with torch.no_grad():
        differences = [((force(1 + 1e-5 * e) - force(1 - 1e-5 * e)) / 2e-5).item() for e in torch.eye(2)]
    assert scale.grad is not None
    assert scale.grad.tolist() == pytest.approx(differences, rel=1e-6, abs=1e-6 * abs(value.item()))


def test_footing_reaches_prandtls_limit_load() -> None:
    """A coarse mesh; the benchmark's is within three percent."""
    curve = bearing_capacity(MohrCoulomb(), WEIGHTLESS, footing_mesh(9), settlement=0.08, increments=20)
    assert curve.level
    assert curve.pressure[-1].item() == pytest.approx(8.345, rel=0.05)
