import pytest
import torch

from bilevel.solvers import Newton, Tolerance
from bilevel.steps import Armijo
from bilevel.steps.family import Instance, Variation
from bilevel.steps.states.guess import LearnedStart
from physics.families.total_variation import SmoothedVariation, TotalVariation


@pytest.fixture(scope="module")
def image() -> Instance:
    return TotalVariation().instance(100, 4)


def solve(image: Instance) -> torch.Tensor:
    newton = Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-10), max_iterations=300, check_minimum=False)
    outcome = newton.solve(image.problem, image.start, image.params)
    assert outcome.report.converged
    return outcome.u


def test_density_and_its_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 1, 2, generator=generator, dtype=torch.float64)
    params = {"weight": torch.tensor(2.0), "smoothing": torch.tensor(0.3)}
    density = SmoothedVariation()
    slope = torch.func.grad(lambda y: density.energy(y, params).sum())(x)
    torch.testing.assert_close(density.stress(x, params), slope, rtol=1e-12, atol=1e-12)
    curvature = torch.func.vmap(torch.func.jacfwd(lambda y: density.stress(y, params)))(x[:, 0])
    torch.testing.assert_close(density.tangent(x, params, 1)[:, 0], curvature, rtol=1e-10, atol=1e-12)


def test_the_start_solves_its_quadratic_problem(image: Instance) -> None:
    assert image.states is not None
    state = image.states.begin(image.start)
    full = image.states.first()  # type: ignore[attr-defined]
    torch.testing.assert_close(state.u, full.u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.memory.flux, full.memory.flux, rtol=1e-10, atol=1e-12)


def test_the_solutions_own_states_give_the_solution(image: Instance) -> None:
    assert image.states is not None
    solution = solve(image)
    state = image.states.begin(image.start)
    found = image.states.solve(state, image.states.targets(state, solution)).u
    assert float((found - solution).norm() / solution.norm()) < 1e-6


def test_without_a_network_the_systems_are_a_primal_dual_newton_method(image: Instance) -> None:
    states = image.states
    assert states is not None
    inner = Newton(tolerance=Tolerance(1e-10), max_iterations=5, check_minimum=False)
    outcome = LearnedStart(lambda problem, params: states, [None] * 20, inner).solve(
        image.problem, image.start, image.params
    )
    assert outcome.report.converged
    assert outcome.report.counts.inferences == 0
    assert outcome.report.counts.factorisations <= 20
    torch.testing.assert_close(outcome.u, solve(image), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("variation", list(Variation))
def test_features_do_not_depend_on_the_unit_of_grey(variation: Variation) -> None:
    one = TotalVariation().instance(100, 5, variation)
    other = TotalVariation(grey_unit=255.0).instance(100, 5, variation)
    assert one.states is not None
    assert other.states is not None
    first, second = one.states.begin(one.start), other.states.begin(other.start)
    torch.testing.assert_close(second.u, 255.0 * first.u, rtol=1e-8, atol=1e-6)
    torch.testing.assert_close(other.states.features(second), one.states.features(first), rtol=1e-5, atol=1e-6)
