"""First guesses for solids of any elastic law: what cells derive of it, and systems about states that need not fit."""

import pytest
import torch

from bilevel.acceleration.learned_guess import LearnedGuess
from bilevel.linalg import factorise
from bilevel.solvers import LoadStepping, Newton, Tolerance
from bilevel.solvers.cellwise.problem import Guess
from bilevel.solvers.steps import TrustRegion
from physics.discretisation import box, rectangle
from physics.solids import MooneyRivlin, NeoHookean, Solid, Yeoh
from physics.solids.cellwise.cells import SolidCells
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid

LAWS = [
    (NeoHookean(), {"mu": 2.0, "lame_lambda": 9.0}),
    (MooneyRivlin(), {"c10": 0.7, "c01": 0.3, "bulk_modulus": 11.0}),
    (Yeoh(), {"c1": 1.0, "c2": 0.05, "c3": 0.01, "bulk_modulus": 11.0}),
]
MESHES = [rectangle(6, 3, (2.0, 1.0)), box(3, 2, 2, (2.0, 1.0, 1.0))]
CASES = [pytest.param(*law, mesh, id=f"{type(law[0]).__name__} {mesh.dim}-D") for law in LAWS for mesh in MESHES]


def body(law, values, mesh, stretch=0.4):
    solid = NearlyIncompressibleSolid(mesh, law, [mesh.fixed("left"), mesh.fixed("right")])
    material = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    right = torch.zeros(len(mesh.nodes_on("right")), mesh.dim, dtype=torch.float64)
    right[:, 0] = stretch
    return solid, {"material": material, "boundary": {"right": right}}


def small(n, size):
    return size * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("law", "values", "mesh"), CASES)
def test_the_hessian_of_cells_is_that_of_the_solid(law, values, mesh):
    solid, params = body(law, values, mesh, 0.02)
    general = Solid(mesh, law, solid.kinematics, [mesh.fixed("left"), mesh.fixed("right")], mean_dilatation=True)
    u, x = small(solid.n, 0.005), small(solid.n, 1.0)
    expected = general.tangent(u, params).matmul(x)
    torch.testing.assert_close(solid.tangent(u, params).matmul(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("law", "values", "mesh"), CASES)
def test_moduli_pressures_and_dilatations_come_from_the_law(law, values, mesh):
    solid, params = body(law, values, mesh)
    split = solid.by_cells.law(params)
    shear = {"NeoHookean": 2.0, "MooneyRivlin": 2.0, "Yeoh": 2.0}[type(law).__name__]
    torch.testing.assert_close(split.shear, torch.full_like(split.shear, shear))
    theta = torch.linspace(0.5, 1.5, len(split.shear), dtype=torch.float64)
    pressure, slope = split.pressure_and_slope(theta)
    step = 1e-6
    difference = (split.pressure(theta + step) - split.pressure(theta - step)) / (2.0 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(split.dilatation(pressure), theta, rtol=1e-10, atol=0.0)
    assert (split.constant_stiffness is not None) == isinstance(law, NeoHookean)


@pytest.mark.parametrize(("law", "values", "mesh"), CASES)
def test_about_states_that_fit_together_the_linear_system_is_a_newton_step(law, values, mesh):
    solid, params = body(law, values, mesh, 0.02)
    cells, u = SolidCells(solid.by_cells, params), small(solid.n, 0.005)
    gradients = cells.gradients(u)
    pressure = cells.pressure(solid.by_cells.mean(torch.linalg.det(gradients)))
    found = cells.linear(Guess(u), gradients, pressure).u
    newton = u - factorise(solid.tangent(u, params)).solve(solid.residual(u, params))
    torch.testing.assert_close(found, newton, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(("law", "values", "mesh"), CASES)
def test_what_targets_ask_for_nearly_gives_the_solution(law, values, mesh):
    solid, params = body(law, values, mesh)

    def path(params, fraction):
        return {**params, "boundary": {"right": fraction * params["boundary"]["right"]}}

    inner = Newton(step=TrustRegion(), tolerance=Tolerance(1e-10), check_minimum=False)
    outcome = LoadStepping(path, inner, predict=True, from_rest=True).solve(solid, solid.start(), params)
    assert outcome.report.converged
    cells = SolidCells(solid.by_cells, params)
    guess = cells.begin(solid.start())
    found = cells.solve(guess, cells.targets(guess, outcome.u)).u
    before, after = (float((u - outcome.u).norm() / outcome.u.norm()) for u in (guess.u, found))
    assert after < 0.05 * before
    guess = LearnedGuess(lambda problem, params: cells, [None] * 4, inner).solve(solid, solid.start(), params)
    assert guess.report.converged
    torch.testing.assert_close(guess.u, outcome.u, rtol=1e-7, atol=1e-9)
