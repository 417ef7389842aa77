"""Families of rubber bars, in the plane and in space."""

from dataclasses import replace

import pytest
import torch

from bilevel.acceleration.family import Instance, Variation
from bilevel.acceleration.learned_guess import LearnedGuess
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.linalg import factorise
from bilevel.solvers import LoadStepping, Newton, Tolerance
from bilevel.solvers.cellwise.problem import Guess
from bilevel.solvers.steps import TrustRegion
from physics.discretisation import box
from physics.families.bars import Bars
from physics.families.large_strain import LargeStrain, PlaneMotion
from physics.families.twisted_bars import SpaceMotion, TwistedBars
from physics.solids import Kinematics, NeoHookean, Solid
from physics.solids.cellwise.cells import SolidCells
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid

FAMILIES = [LargeStrain(), TwistedBars()]


def small_state(n: int, size: float) -> torch.Tensor:
    return size * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def newton(max_iterations: int = 15) -> Newton:
    return Newton(step=TrustRegion(), tolerance=Tolerance(1e-10), max_iterations=max_iterations, check_minimum=False)


def stepping(bar: Instance) -> LoadStepping:
    assert bar.path is not None
    return LoadStepping(bar.path, newton(), predict=True, from_rest=True)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def solved(request: pytest.FixtureRequest) -> tuple[Instance, torch.Tensor]:
    bar = request.param.instance(60, 3, Variation.MESH)
    outcome = stepping(bar).solve(bar.problem, bar.start, bar.params)
    assert outcome.report.converged
    return bar, outcome.u


@pytest.mark.parametrize("variation", [Variation.TRAINING, Variation.MESH])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_closed_form_hessian_is_that_of_the_general_solid(family: Bars, variation: Variation) -> None:
    bar = family.instance(60, 1, variation)
    assert isinstance(bar.problem, NearlyIncompressibleSolid)
    assert bar.path is not None
    held = [bar.problem.mesh.fixed("left"), bar.problem.mesh.fixed("right")]
    general = Solid(bar.problem.mesh, NeoHookean(), bar.problem.kinematics, held, mean_dilatation=True)
    params, u = bar.path(bar.params, 0.05), small_state(general.n, 0.002)
    x = small_state(general.n, 1.0)
    expected = general.tangent(u, params).matmul(x)
    torch.testing.assert_close(bar.problem.tangent(u, params).matmul(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_about_states_that_fit_together_the_linear_system_is_a_newton_step(family: Bars) -> None:
    bar = family.instance(60, 2)
    assert isinstance(bar.problem, NearlyIncompressibleSolid)
    assert isinstance(bar.cellwise, SolidCells)
    assert bar.path is not None
    params = bar.path(bar.params, 0.0)
    cellwise = SolidCells(bar.problem.by_cells, params, bar.cellwise.motion)
    u = small_state(bar.problem.n, 0.002)
    gradients = cellwise.gradients(u)
    pressure = cellwise.pressure(bar.problem.by_cells.mean(torch.linalg.det(gradients)))
    found = cellwise.linear(Guess(u), gradients, pressure).u
    newton = u - factorise(bar.problem.tangent(u, params)).solve(bar.problem.residual(u, params))
    torch.testing.assert_close(found, newton, rtol=1e-9, atol=1e-12)


def test_states_that_err_by_epsilon_give_a_field_that_errs_by_its_square(
    solved: tuple[Instance, torch.Tensor],
) -> None:
    bar, solution = solved
    cellwise = bar.cellwise
    assert isinstance(cellwise, SolidCells)
    guess, gradients = cellwise.begin(bar.start), cellwise.gradients(solution)
    pressure = cellwise.pressure(cellwise.cells.mean(torch.linalg.det(gradients)))
    wrong = small_state(gradients.numel(), 1.0).reshape(gradients.shape)
    errors = []
    for epsilon in (0.0, 0.005, 0.01):
        found = cellwise.linear(guess, gradients + epsilon * wrong, pressure * (1.0 + epsilon)).u
        errors.append(float((found - solution).norm() / solution.norm()))
    assert errors[0] < 1e-8
    assert 3.5 < errors[2] / errors[1] < 4.5


def test_what_targets_ask_for_nearly_gives_the_solution(solved: tuple[Instance, torch.Tensor]) -> None:
    """Nearly, because how the points of a cell differ is taken from the field before."""
    bar, solution = solved
    assert bar.cellwise is not None
    guess = bar.cellwise.begin(bar.start)
    found = bar.cellwise.solve(guess, bar.cellwise.targets(guess, solution)).u
    before, after = (float((u - solution).norm() / solution.norm()) for u in (guess.u, found))
    assert after < 1e-3
    assert after < 0.02 * before


def test_targets_are_the_outputs_that_were_chosen(solved: tuple[Instance, torch.Tensor]) -> None:
    bar, solution = solved
    cellwise = bar.cellwise
    assert isinstance(cellwise, SolidCells)
    guess = cellwise.begin(bar.start)
    about, pressure = cellwise.chosen(guess, cellwise.targets(guess, solution))
    gradients, mean = cellwise.gradients(solution), cellwise.cells.mean
    torch.testing.assert_close(mean(about), mean(gradients), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pressure, cellwise.pressure(mean(torch.linalg.det(gradients))), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", [LargeStrain, TwistedBars])
def test_features_do_not_depend_on_the_unit_of_stiffness(family: type[Bars]) -> None:
    one, other = family().instance(60, 5), family(stiffness_unit=1e6).instance(60, 5)
    assert one.cellwise is not None
    assert other.cellwise is not None
    first, second = one.cellwise.begin(one.start), other.cellwise.begin(other.start)
    torch.testing.assert_close(second.u, first.u, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(other.cellwise.features(second), one.cellwise.features(first), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_rigid_rotation_changes_no_features_and_turns_what_is_chosen(family: Bars) -> None:
    bar = family.instance(60, 6)
    cellwise = bar.cellwise
    assert isinstance(cellwise, SolidCells)
    guess = cellwise.begin(bar.start)
    matrices = cellwise.matrices
    angles = torch.tensor([[0.4, -0.9, 1.3][: len(matrices.turns)]], dtype=torch.float64)
    turn = matrices.rotation(angles)[0]
    memory = replace(
        guess.memory,
        gradients=turn @ guess.memory.gradients,
        about=turn @ guess.memory.about,
        stress=turn @ guess.memory.stress,
    )
    turned = replace(guess, memory=memory)
    torch.testing.assert_close(cellwise.features(turned), cellwise.features(guess), rtol=1e-9, atol=1e-9)
    outputs = small_state(len(memory.gradients) * len(cellwise.outputs), 0.05).reshape(-1, len(cellwise.outputs))
    one, other = cellwise.chosen(guess, outputs), cellwise.chosen(turned, outputs)
    # The roots of the least eigenvalues of F^T F of flat cells lose half of the digits.
    torch.testing.assert_close(other[0], turn @ one[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other[1], one[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_same_seed_gives_the_same_instance_and_another_does_not(family: Bars) -> None:
    first, same, other = (family.instance(60, seed) for seed in (7, 7, 8))
    assert first.description == same.description != other.description
    assert torch.equal(first.params["material"]["mu"], same.params["material"]["mu"])


def test_a_network_that_errs_costs_time_and_not_the_solution(solved: tuple[Instance, torch.Tensor]) -> None:
    bar, solution = solved
    cellwise = bar.cellwise
    assert cellwise is not None
    features = cellwise.features(cellwise.begin(bar.start))
    torch.manual_seed(0)
    wrong = CellNetwork(features.shape[1], len(cellwise.outputs), cellwise.incidence.features.shape[1])
    torch.nn.init.normal_(wrong.decode[-1].weight, std=30.0)  # type: ignore[arg-type]
    solver = LearnedGuess(lambda problem, params: cellwise, [wrong], newton(1), (stepping(bar),))
    outcome = solver.solve(bar.problem, bar.start, bar.params)
    assert outcome.report.converged
    assert outcome.report.counts.fallbacks >= 1
    assert outcome.report.counts.inferences == 1
    torch.testing.assert_close(outcome.u, solution, rtol=1e-6, atol=1e-8)


def test_a_plane_end_moves_on_its_arc() -> None:
    motion = PlaneMotion(3.0, stretch=1.5, angle=1.2, shear=0.3)
    points = torch.tensor([[3.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    moved = points + motion.displacement(points, 1.0)
    middle, across = moved.mean(0), moved[1] - moved[0]
    radius = 4.5 / 1.2
    angle = torch.tensor(1.2, dtype=torch.float64)
    expected = torch.stack((radius * angle.sin(), radius * (1.0 - angle.cos()) + 0.8))
    torch.testing.assert_close(middle, expected)
    torch.testing.assert_close(across, torch.stack((-angle.sin(), angle.cos())))
    torch.testing.assert_close(motion.displacement(points, 0.0), torch.zeros_like(points))


def test_an_end_in_space_turns_as_a_whole() -> None:
    screw = SpaceMotion(3.0, stretch=1.5, twist=2.0, bend=0.0)
    points = box(3, 2, 2, (3.0, 1.0, 1.0)).coordinates
    end = points[points[:, 0] > 3.0 - 1e-9]
    moved = end + screw.displacement(end, 1.0)
    torch.testing.assert_close(moved[:, 0], torch.full_like(moved[:, 0], 4.5))
    before, after = (x[:, 1:] - 0.5 for x in (end, moved))
    across = before.norm(dim=1) > 0.1
    angle = torch.atan2(after[:, 1], after[:, 0]) - torch.atan2(before[:, 1], before[:, 0])
    expected = torch.full_like(angle[across], 2.0)
    torch.testing.assert_close(torch.remainder(angle[across], 2.0 * torch.pi), expected)
    both = replace(screw, bend=1.1, towards=2.5)
    turned = both.turn(torch.ones((), dtype=torch.float64))
    moved = end + both.displacement(end, 1.0)
    torch.testing.assert_close((end - end.mean(0)) @ turned.mT, moved - moved.mean(0))
    # A bend keeps the arc's length: the chord is 2 r sin(bend / 2) and leans by half of the bend.
    chord = moved.mean(0) - torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    length, lean = 2.0 * 4.5 / 1.1 * torch.sin(torch.tensor(0.55)), torch.atan2(chord[1:].norm(), chord[0])
    assert float(chord.norm()) == pytest.approx(float(length), rel=1e-6)
    assert float(lean) == pytest.approx(0.55)
    torch.testing.assert_close(both.displacement(end, 0.0), torch.zeros_like(end))


@torch.no_grad()
def test_twisted_bars_are_solids_in_space() -> None:
    bar = TwistedBars().instance(60, 3)
    assert isinstance(bar.problem, NearlyIncompressibleSolid)
    assert bar.problem.kinematics is Kinematics.THREE_DIMENSIONAL
    assert bar.problem.mesh.dim == 3
