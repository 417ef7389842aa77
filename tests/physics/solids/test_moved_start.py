"""Bodies whose supports have moved far: where their equilibrium is looked for first."""

import pytest
import torch

from physics.constitutive.kinematics import Kinematics
from physics.discretisation import box, rectangle
from physics.solids import NeoHookean, Solid, Traction
from physics.solids.moved_start import _harmonic, _linear, moved_start

PARAMS = {"mu": torch.tensor(1.0, dtype=torch.float64), "lame_lambda": torch.tensor(50.0, dtype=torch.float64)}


def bar(order: int = 1) -> Solid:
    mesh = rectangle(12, 4, (3.0, 1.0), order=order)
    return Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left"), mesh.fixed("right")])


def moved(*by: float) -> dict[str, object]:
    return {"material": PARAMS, "boundary": {"right": torch.tensor(by, dtype=torch.float64)}}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("by", [(1.5, 0.3), (3.0, 0.3), (6.0, 0.0), (0.5, 2.0)])
def test_a_clamped_bar_is_stretched_at_once(order, by):
    solution = bar(order).solve(moved(*by))
    print(order, by, solution.report.counts.factorisations)
    assert solution.report.counts.factorisations <= 30


def test_the_harmonic_extension_of_a_homogeneous_motion_is_that_motion():
    for mesh in (rectangle(5, 3, order=2), box(3, 2, 2)):
        x = mesh.coordinates
        motion = x @ torch.linspace(-0.3, 0.8, mesh.dim**2, dtype=torch.float64).reshape(mesh.dim, mesh.dim)
        outside = ((x < 1e-9) | (x > x.amax(0) - 1e-9)).any(1).nonzero()[:, 0]
        kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else Kinematics.THREE_DIMENSIONAL
        held = [mesh.fixed_nodes("skin", outside)] if hasattr(mesh, "fixed_nodes") else None
        if held is None:
            from physics.discretisation.constraints import Dirichlet

            held = [Dirichlet("skin", outside)]
        solid = Solid(mesh, NeoHookean(), kinematics, held)
        params = {"material": PARAMS, "boundary": {"skin": motion[outside]}}
        for start in (_linear, _harmonic):
            u = start(solid, params, solid.expand(solid.start(), params))
            torch.testing.assert_close(solid.expand(u, params), motion, rtol=1e-10, atol=1e-11)


def test_a_body_whose_supports_stay_begins_at_rest():
    mesh = rectangle(4, 2)
    solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [Traction("pull", "right")])
    params = {"material": PARAMS, "pull": torch.tensor([0.3, 0.0], dtype=torch.float64)}
    assert not bool(moved_start(solid, params).any())
