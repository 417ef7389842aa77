from dataclasses import replace

import pytest
import torch

from bilevel.acceleration.family import Instance, Variation
from bilevel.acceleration.learned_guess import LearnedGuess
from bilevel.solvers import Newton, Tolerance
from bilevel.solvers.cellwise.problem import Guess
from bilevel.solvers.steps import Armijo
from physics.families.denoised_volumes import DenoisedVolumes
from physics.local.total_variation.cells import VariationCells
from physics.local.total_variation.density import SmoothedVariation


@pytest.fixture(scope="module")
def volume() -> Instance:
    return DenoisedVolumes().instance(125, 4)


def states_of(volume: Instance) -> VariationCells:
    assert isinstance(volume.cellwise, VariationCells)
    return volume.cellwise


def on(cellwise: VariationCells, start: torch.Tensor, systems: int = 1) -> Guess:
    """The state after some systems without a network."""
    guess = cellwise.begin(start)
    for _ in range(systems):
        guess = cellwise.solve(guess)
    return guess


def solve(volume: Instance) -> torch.Tensor:
    newton = Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-10), max_iterations=300, check_minimum=False)
    outcome = newton.solve(volume.problem, volume.start, volume.params)
    assert outcome.report.converged
    return outcome.u


def test_density_and_its_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 1, 3, generator=generator, dtype=torch.float64)
    params = {"weight": torch.tensor(2.0), "smoothing": torch.tensor(0.3)}
    density = SmoothedVariation()
    slope = torch.func.grad(lambda y: density.energy(y, params).sum())(x)
    torch.testing.assert_close(density.stress(x, params), slope, rtol=1e-12, atol=1e-12)
    curvature = torch.func.vmap(torch.func.jacfwd(lambda y: density.stress(y, params)))(x[:, 0])
    torch.testing.assert_close(density.tangent(x, params, 1)[:, 0], curvature, rtol=1e-10, atol=1e-12)


def test_the_start_solves_its_quadratic_problem(volume: Instance) -> None:
    cellwise = states_of(volume)
    systems, guess = cellwise.systems, cellwise.begin(volume.start)
    balance = systems.mass * (guess.u - systems.data) + systems.divergence(systems.cost[:, None] * guess.memory.flux)
    assert float(balance.norm()) < 1e-12 * float((systems.mass * systems.data).norm())
    torch.testing.assert_close(guess.memory.flux, guess.memory.primal / cellwise.coarse, rtol=1e-14, atol=0.0)


def test_the_fluxes_of_a_system_balance_the_misfit(volume: Instance) -> None:
    cellwise = states_of(volume)
    systems, guess = cellwise.systems, cellwise.solve(on(cellwise, volume.start))
    balance = systems.mass * (guess.u - systems.data) + systems.divergence(systems.cost[:, None] * guess.memory.flux)
    assert float(balance.norm()) < 1e-8 * float((systems.mass * systems.data).norm())


def test_the_solution_stays_where_it_is(volume: Instance) -> None:
    cellwise, solution = states_of(volume), solve(volume)
    guess = cellwise.begin(solution)
    assert cellwise.near_solution(guess)
    found = cellwise.solve(guess).u
    assert float((found - solution).norm() / solution.norm()) < 1e-6


def test_without_a_network_the_systems_are_a_primal_dual_newton_method(volume: Instance) -> None:
    cellwise = states_of(volume)
    inner = Newton(tolerance=Tolerance(1e-10), max_iterations=5, check_minimum=False)
    outcome = LearnedGuess(lambda problem, params: cellwise, [None] * 20, inner).solve(
        volume.problem, volume.start, volume.params
    )
    assert outcome.report.converged
    assert outcome.report.counts.inferences == 0
    assert outcome.report.counts.factorisations <= 20
    torch.testing.assert_close(outcome.u, solve(volume), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("variation", list(Variation))
def test_systems_do_not_depend_on_the_unit_of_grey(variation: Variation) -> None:
    one = DenoisedVolumes().instance(125, 5, variation)
    other = DenoisedVolumes(grey_unit=255.0).instance(125, 5, variation)
    first, second = (on(states_of(each), each.start) for each in (one, other))
    torch.testing.assert_close(second.u, 255.0 * first.u, rtol=1e-8, atol=1e-6)


def test_systems_do_not_depend_on_the_unit_of_energy_or_a_turn_of_the_volume(volume: Instance) -> None:
    cellwise = states_of(volume)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    own = cellwise.systems
    changed = replace(own, weight=7.0 * own.weight, mass=7.0 * own.mass, columns=own.columns @ turn)
    other = VariationCells(changed, cellwise.coarse)
    first, second = (s.solve(s.begin(volume.start)) for s in (cellwise, other))
    torch.testing.assert_close(second.u, first.u, rtol=1e-8, atol=1e-8)
