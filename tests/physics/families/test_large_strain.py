from dataclasses import replace

import pytest
import torch

from bilevel.linalg import factorise
from bilevel.solvers import LoadStepping, Newton, Tolerance
from bilevel.steps import TrustRegion
from bilevel.steps.family import Instance, Variation
from bilevel.steps.states.guess import LearnedStart
from bilevel.steps.states.network import StateNetwork
from bilevel.steps.states.problem import State
from physics.families.large_strain import LargeStrain
from physics.families.plane_matrices import angle_of, bounded, rotation, symmetric_function
from physics.families.solid_states import SolidStates
from physics.solids import Kinematics, NeoHookean, Solid


def small_state(n: int, size: float = 0.01) -> torch.Tensor:
    return size * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def bar() -> Instance:
    return LargeStrain().instance(60, 3, Variation.MESH)


@pytest.fixture(scope="module")
def solution(bar: Instance) -> torch.Tensor:
    assert bar.path is not None
    inner = Newton(step=TrustRegion(), tolerance=Tolerance(1e-10), max_iterations=15, check_minimum=False)
    outcome = LoadStepping(bar.path, inner, predict=True, from_rest=True).solve(bar.problem, bar.start, bar.params)
    assert outcome.report.converged
    return outcome.u


@pytest.mark.parametrize("variation", [Variation.TRAINING, Variation.MESH])
def test_closed_form_hessian_is_that_of_the_general_solid(variation: Variation) -> None:
    bar = LargeStrain().instance(60, 1, variation)
    assert isinstance(bar.problem, Solid)
    assert bar.path is not None
    held = [bar.problem.mesh.fixed("left"), bar.problem.mesh.fixed("right")]
    general = Solid(bar.problem.mesh, NeoHookean(), Kinematics.PLANE_STRAIN, held, mean_dilatation=True)
    params, u = bar.path(bar.params, 0.05), small_state(general.n, 0.002)
    x = small_state(general.n, 1.0)
    expected = general.tangent(u, params).matmul(x)
    torch.testing.assert_close(bar.problem.tangent(u, params).matmul(x), expected, rtol=1e-10, atol=1e-10)


def test_about_states_that_fit_together_the_linear_system_is_a_newton_step() -> None:
    bar = LargeStrain().instance(60, 2)
    assert isinstance(bar.states, SolidStates)
    assert bar.path is not None
    params = bar.path(bar.params, 0.0)
    states = SolidStates(bar.states.solid, params, {"left": 0.0, "right": 0.0})
    u = small_state(bar.states.solid.n, 0.002)
    gradients = states.gradients(u)
    pressure = states.pressure(states.mean(torch.linalg.det(gradients)))
    found = states.linear(State(u), gradients, pressure).u
    newton = u - factorise(bar.problem.tangent(u, params)).solve(bar.problem.residual(u, params))
    torch.testing.assert_close(found, newton, rtol=1e-9, atol=1e-12)


def test_the_solutions_own_states_give_the_solution(bar: Instance, solution: torch.Tensor) -> None:
    assert bar.states is not None
    state = bar.states.begin(bar.start)
    found = bar.states.solve(state, bar.states.targets(state, solution)).u
    assert float((found - solution).norm() / solution.norm()) < 1e-6


def test_features_do_not_depend_on_the_unit_of_stiffness() -> None:
    one, other = LargeStrain().instance(60, 5), LargeStrain(stiffness_unit=1e6).instance(60, 5)
    assert one.states is not None
    assert other.states is not None
    first, second = one.states.begin(one.start), other.states.begin(other.start)
    torch.testing.assert_close(second.u, first.u, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(other.states.features(second), one.states.features(first), rtol=1e-6, atol=1e-7)


def test_the_same_seed_gives_the_same_instance_and_another_does_not() -> None:
    first, same, other = (LargeStrain().instance(60, seed) for seed in (7, 7, 8))
    assert first.description == same.description != other.description
    assert torch.equal(first.params["material"]["mu"], same.params["material"]["mu"])


def test_a_network_that_errs_costs_time_and_not_the_solution(bar: Instance, solution: torch.Tensor) -> None:
    states, path = bar.states, bar.path
    assert states is not None
    assert path is not None
    features = states.features(states.begin(bar.start))
    torch.manual_seed(0)
    wrong = StateNetwork(features.shape[1], len(states.outputs), 2)
    torch.nn.init.normal_(wrong.decode[-1].weight, std=30.0)  # type: ignore[arg-type]
    inner = Newton(step=TrustRegion(), tolerance=Tolerance(1e-10), max_iterations=15, check_minimum=False)
    stepping = LoadStepping(path, inner, predict=True, from_rest=True)
    solver = LearnedStart(lambda problem, params: states, [wrong], replace(inner, max_iterations=1), (stepping,))
    outcome = solver.solve(bar.problem, bar.start, bar.params)
    assert outcome.report.converged
    assert outcome.report.counts.fallbacks >= 1
    assert outcome.report.counts.inferences == 1
    torch.testing.assert_close(outcome.u, solution, rtol=1e-6, atol=1e-8)


def test_matrix_functions() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(20, 2, 2, generator=generator, dtype=torch.float64)
    s = a @ a.mT
    torch.testing.assert_close(symmetric_function(s, torch.exp), torch.linalg.matrix_exp(s), rtol=1e-9, atol=1e-9)
    angles = torch.linspace(-3.0, 3.0, 20, dtype=torch.float64)
    spd = s + torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(angle_of(rotation(angles) @ spd), angles, rtol=1e-12, atol=1e-12)
    singular = torch.linalg.svdvals(bounded(5.0 * a, 0.5, 2.0))
    assert float(singular.min()) > 0.5 - 1e-9
    assert float(singular.max()) < 2.0 + 1e-9
    assert bool((torch.linalg.det(bounded(5.0 * a, 0.5, 2.0)) > 0).all())
