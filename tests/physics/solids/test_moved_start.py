"""Bodies whose supports have moved far: where their equilibrium is looked for first."""

import pytest
import torch

from bilevel.solvers import Newton, Tolerance
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import box, rectangle
from physics.families.large_strain import LargeStrain, PlaneMotion
from physics.families.twisted_bars import SpaceMotion, TwistedBars
from physics.solids import NeoHookean, Solid, Traction
from physics.solids.extension import Extension
from physics.solids.moved_start import _linear

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
        moved_skin, extension = solid.expand(solid.start(), params), Extension(solid, params)
        for u in (_linear(solid, params, moved_skin), extension.harmonic(moved_skin)):
            torch.testing.assert_close(solid.expand(u, params), motion, rtol=1e-10, atol=1e-11)


def test_a_body_whose_supports_stay_begins_at_rest():
    mesh = rectangle(4, 2)
    solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [Traction("pull", "right")])
    params = {"material": PARAMS, "pull": torch.tensor([0.3, 0.0], dtype=torch.float64)}
    assert not bool(solid.first_guess(params).u.any())


def test_a_body_that_its_supports_turn_as_a_whole_turns():
    """By the rotation of either end, of more than a right angle, in the plane and in space."""
    for mesh, motion in (
        (rectangle(6, 3), PlaneMotion(1.0, angle=2.0)),
        (box(4, 2, 2), SpaceMotion(1.0, twist=1.1, bend=0.8)),
    ):
        x = mesh.coordinates
        turn = motion.turn(torch.tensor(1.0, dtype=torch.float64))
        expected = (x - 0.3) @ turn.mT + 0.7 - x
        kinematics = Kinematics.PLANE_STRAIN if mesh.dim == 2 else Kinematics.THREE_DIMENSIONAL
        solid = Solid(mesh, NeoHookean(), kinematics, [mesh.fixed("left"), mesh.fixed("right")])
        boundary = {side: expected[mesh.nodes_on(side)] for side in ("left", "right")}
        params = {"material": PARAMS, "boundary": boundary}
        held = solid.expand(solid.start(), params)
        u = Extension(solid, params).rigid(held, x)
        torch.testing.assert_close(solid.expand(u, params), expected, rtol=1e-10, atol=1e-11)


def test_an_end_that_turns_far_crushes_no_cell():
    """As the extension of each component by itself does."""
    mesh, motion = rectangle(24, 8, (3.0, 1.0)), PlaneMotion(3.0, angle=2.2)
    solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left"), mesh.fixed("right")])
    end = motion.displacement(mesh.coordinates[mesh.nodes_on("right")], 1.0)
    params = {"material": PARAMS, "boundary": {"right": end}}
    held, extension = solid.expand(solid.start(), params), Extension(solid, params)
    crushed, turned = (
        float(torch.linalg.det(solid.strain(u, params)).min())
        for u in (extension.harmonic(held), extension.rigid(held, mesh.coordinates))
    )
    assert crushed < 0.0 < 0.5 < turned


@pytest.mark.parametrize("family", [LargeStrain(), TwistedBars()], ids=lambda family: family.name)
def test_bars_are_near_equilibrium_where_solves_begin(family):
    for seed in range(4):
        bar = family.instance(150, seed)
        start = bar.problem.first_guess(bar.params)
        report = Newton(tolerance=Tolerance(1e-8)).solve(bar.problem, start.u, bar.params).report
        assert report.converged
        assert report.iterations <= 4
        assert start.counts.factorisations <= 10
