"""Linear elements that lock near incompressibility say so; those that do not lock are silent."""

from __future__ import annotations

import pytest
import torch

import bilevel
import physics.discretisation as meshes
from physics.constitutive import Kinematics
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.discretisation import Shape
from physics.solids import Solid, Traction

PLANE_STRAIN, PLANE_STRESS = Kinematics.PLANE_STRAIN, Kinematics.PLANE_STRESS


def beam(order=1, shape=Shape.QUADRILATERAL, kinematics=PLANE_STRAIN, ratio=0.4999, **options):
    """The deflection of a beam under shear at its end, and what its report remarks."""
    mesh = meshes.rectangle(8, 2, (4.0, 1.0), shape=shape, order=order)
    solid = Solid(mesh, LinearElastic(), kinematics, [mesh.fixed("left")], [Traction("shear", "right")], **options)
    material = {"youngs_modulus": torch.tensor(1e3), "poissons_ratio": torch.tensor(ratio)}
    params = {"material": material, "shear": torch.tensor([0.0, 1e-3])}
    solution = solid.solve(params)
    return float(solid.expand(solution.u, params)[:, 1].max()), [n for n in solution.report.notes if "lock" in n]


def test_what_locks_is_remarked_and_what_does_not_is_silent() -> None:
    right, silent = beam(order=2)
    assert not silent
    for shape in (Shape.QUADRILATERAL, Shape.TRIANGLE):
        found, remarks = beam(shape=shape)
        assert found < 0.6 * right
        assert "order=2" in remarks[0]
    for options in ({"mean_dilatation": True}, {"kinematics": PLANE_STRESS}, {"ratio": 0.45}):
        assert not beam(**options)[1]


def test_one_nearly_incompressible_zone_is_enough() -> None:
    mesh = meshes.box(2, 2, 2)
    solid = Solid(mesh, NeoHookean(), None, [mesh.fixed("left")], [Traction("pull", "right")])
    stiffness = torch.tensor([1.0] * 7 + [1e3])
    params = {"material": {"mu": torch.tensor(1.0), "lame_lambda": stiffness}, "pull": torch.tensor([1e-3, 0.0, 0.0])}
    (note,) = (n for n in solid.solve(params).report.notes if "lock" in n)
    assert "1e+03 times" in note


def test_a_body_without_an_energy_is_no_function_to_minimise() -> None:
    from physics.constitutive.inelastic.j2 import J2Plasticity

    mesh = meshes.rectangle(2, 2)
    solid = Solid(mesh, J2Plasticity(), PLANE_STRAIN, [mesh.fixed("left")])
    with pytest.raises(TypeError, match="InelasticSolid is neither a Problem of the kind asked for"):
        bilevel.argmin(solid, solid.start(), {})
