"""The power-law family: instances, its split into cells, and what linear systems about any gradients must satisfy."""

import itertools

import pytest
import torch

from bilevel.solvers import Newton
from bilevel.solvers.oracle import Tolerance
from bilevel.steps import Armijo
from bilevel.steps.family import Variation
from bilevel.steps.states.joined import Joined
from bilevel.steps.states.network import StateNetwork
from physics.families.power_law import PowerLawFlow
from physics.families.power_law_cells import PowerLawCells

SMALL = 90


def random_network(seed=0, scale=0.5):
    torch.manual_seed(seed)
    network = StateNetwork(8, 3, hidden=8, hops=2)
    with torch.no_grad():
        network.decode[-1].weight.normal_(0.0, scale)
    return network


@torch.no_grad()
def following(states, state, network):
    return states.solve(state, network(states.features(state), states.incidence).double())


def solved(instance):
    newton = Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-12), max_iterations=300)
    outcome = newton.solve(instance.problem, instance.start, instance.params)
    assert outcome.report.converged
    return outcome.u


def cells(exponent):
    count = 60
    generator = torch.Generator().manual_seed(1)
    conductance = torch.rand(count, generator=generator, dtype=torch.float64) * 3 + 0.1
    return PowerLawCells(torch.full_like(conductance, exponent), torch.full_like(conductance, 1e-3), conductance)


@pytest.mark.parametrize("exponent", [1.2, 1.5, 2.0, 3.0, 6.0])
def test_the_law_and_its_inverse_agree_over_twelve_decades(exponent):
    law = cells(exponent)
    gradients = torch.logspace(-8, 4, 60, dtype=torch.float64)
    assert torch.allclose(law.log_gradients(law.flux(gradients)).exp(), gradients, rtol=1e-3)


@pytest.mark.parametrize("exponent", [1.2, 3.0])
def test_slope_and_inverse_are_derivatives(exponent):
    law = cells(exponent)
    gradients = torch.linspace(-0.5, 0.5, 60, dtype=torch.float64)
    assert torch.allclose(
        torch.func.jvp(law.flux, (gradients,), (torch.ones_like(gradients),))[1], law.slope(gradients)
    )
    fluxes = torch.linspace(0.01, 1.0, 60, dtype=torch.float64)
    gradients = law.log_gradients(fluxes).exp()
    rate = torch.func.jvp(law.log_gradients, (fluxes,), (torch.ones_like(fluxes),))[1]
    assert torch.allclose(rate, 1.0 / law.slope(gradients) / gradients, rtol=1e-3)


@pytest.mark.parametrize("variation", list(Variation))
def test_an_instance_is_its_seed_and_starts_at_the_linear_solution(variation):
    family = PowerLawFlow()
    one, same = family.instance(SMALL, 5, variation), family.instance(SMALL, 5, variation)
    other = family.instance(SMALL, 6, variation)
    assert torch.equal(one.start, same.start)
    assert one.description == same.description != other.description
    states = one.states
    linear = states.first_slope() * states.gradients(one.start)
    assert float(states.imbalance(linear).norm()) < 1e-10 * float(linear.norm())
    assert 0.8 * SMALL < one.nodes < 1.5 * SMALL


def test_the_imbalance_of_the_law_is_the_residual():
    instance = PowerLawFlow(exponent=3.0).instance(SMALL, 1)
    u = instance.start + 0.01 * torch.sin(torch.arange(len(instance.start), dtype=torch.float64))
    states = instance.states
    residual = instance.problem.residual(u, instance.params)
    assert torch.allclose(states.imbalance(states.law.flux(states.gradients(u))), residual, rtol=1e-9, atol=1e-14)
    slope = states.law.slope(states.gradients(u))
    tangent = instance.problem.tangent(u, instance.params)
    assert torch.allclose(states.matrix(slope).values, tangent.values, rtol=1e-9)


@pytest.mark.parametrize("exponent", [1.4, 4.0])
def test_systems_about_the_solution_give_the_solution_whatever_the_network_says(exponent):
    instance = PowerLawFlow(exponent=exponent).instance(SMALL, 2)
    u = solved(instance)
    states = instance.states
    state = states.begin(u)
    again = following(states, state, random_network())
    assert float((again.u - u).norm()) < 1e-6 * float(u.norm())


@pytest.mark.parametrize("exponent", [1.4, 3.0])
def test_linearising_about_wrong_gradients_errs_to_second_order(exponent):
    """Gradients that err by e, and belong to no u, give a u that errs by O(e^2)."""
    instance = PowerLawFlow(exponent=exponent).instance(SMALL, 2)
    states = instance.states
    u = solved(instance)
    gradients = states.gradients(u)
    noise = torch.randn(len(gradients), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for size in (2e-2, 1e-2, 5e-3):
        point = gradients * (size * noise).exp()
        slope = states.law.slope(point)
        found = states.linear_solution(slope, states.law.flux(point) - slope * point)
        errors.append(float((found - u).norm()))
    orders = [torch.log2(torch.tensor(a / b)).item() for a, b in itertools.pairwise(errors)]
    assert min(orders) > 1.8


@pytest.mark.parametrize("exponent", [1.3, 4.0])
def test_units_do_not_change_the_next_system(exponent):
    network = random_network()

    def second(family):
        states = family.instance(SMALL, 3).states
        state = states.begin(family.instance(SMALL, 3).start)
        for _ in range(2):
            state = following(states, state, network)
        return state.u

    reference = second(PowerLawFlow(exponent=exponent))
    scaled = second(PowerLawFlow(head_unit=1e4, conductance_unit=3e-7, exponent=exponent))
    assert torch.allclose(scaled / 1e4, reference, rtol=1e-6, atol=1e-6 * float(reference.abs().max()))


def test_problems_side_by_side_solve_as_they_do_alone():
    family, network = PowerLawFlow(), random_network()
    instances = [family.instance(SMALL, seed) for seed in range(3)]
    joined = Joined([instance.states for instance in instances])
    state = joined.begin(torch.cat([instance.start for instance in instances]))
    state = following(joined, state, network)
    alone = []
    for instance in instances:
        states = instance.states
        alone.append(following(states, states.begin(instance.start), network).u)
    assert torch.allclose(state.u, torch.cat(alone), rtol=1e-5, atol=1e-7)


def test_the_gradient_through_a_linear_system_is_that_of_finite_differences():
    instance = PowerLawFlow(exponent=3.0).instance(SMALL, 4)
    states = instance.states
    state = states.begin(instance.start)
    weights = torch.cos(torch.arange(len(instance.start), dtype=torch.float64))
    outputs = 0.1 * torch.sin(torch.arange(3 * len(states.cells), dtype=torch.float64)).reshape(-1, 3)
    way = torch.cos(3 * torch.arange(outputs.numel(), dtype=torch.float64)).reshape(outputs.shape)

    def value(outputs):
        found = states.solve(state, outputs)
        return (found.u * weights).sum() + found.memory.fluxes.square().sum() / 1e-3

    given = outputs.clone().requires_grad_()
    slope = float((torch.autograd.grad(value(given), given)[0] * way).sum())
    step = 1e-5
    expected = float(value(outputs + step * way) - value(outputs - step * way)) / (2 * step)
    assert slope == pytest.approx(expected, rel=1e-6)
