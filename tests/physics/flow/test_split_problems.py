"""What linear systems about any gradients must satisfy, in all families of nonlinear flow."""

import itertools
from dataclasses import replace

import pytest
import torch

from bilevel.acceleration.family import Variation
from bilevel.acceleration.networks.cell_network import CellNetwork
from bilevel.solvers import Newton
from bilevel.solvers.cellwise import vectors
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.steps import Armijo
from physics.families.forchheimer import ForchheimerFlow
from physics.families.p_laplacian import PLaplacianFlow
from physics.families.power_law import PowerLawFlow

SMALL = 90
FAMILIES = [PowerLawFlow(), ForchheimerFlow(), PLaplacianFlow()]
CASES = [
    PowerLawFlow(exponent=1.4),
    PowerLawFlow(exponent=4.0),
    ForchheimerFlow(inertia=30.0),
    PLaplacianFlow(exponent=1.4),
    PLaplacianFlow(exponent=4.0),
]


def named(family):
    return family.name + "".join(f" {value}" for value in vars(family).values() if value not in (None, 1.0))


every_family = pytest.mark.parametrize("family", FAMILIES, ids=named)
every_case = pytest.mark.parametrize("family", CASES, ids=named)


def random_network(seed=0, scale=0.5):
    torch.manual_seed(seed)
    network = CellNetwork(8, 3, hidden=8, hops=2)
    with torch.no_grad():
        network.decode[-1].weight.normal_(0.0, scale)
    return network


@torch.no_grad()
def following(cellwise, guess, network):
    return cellwise.solve(guess, network(cellwise.features(guess), cellwise.incidence).double())


def solved(instance):
    newton = Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-12), max_iterations=300)
    outcome = newton.solve(instance.problem, instance.start, instance.params)
    assert outcome.report.converged
    return outcome.u


def linearised(cellwise, gradients):
    """The tangents of the law at gradients, and the fluxes that they leave."""
    sizes = vectors.size(gradients)
    secant, tangent = cellwise.law.secant_and_slope(sizes)
    slope = vectors.slope_about(vectors.scaled(1.0 / sizes, gradients), tangent, secant)
    return slope, cellwise.law.flux(gradients) - vectors.times(slope, gradients)


@pytest.mark.parametrize("variation", list(Variation))
@every_family
def test_an_instance_is_its_seed_and_starts_at_the_linear_solution(family, variation):
    one, same = family.instance(SMALL, 5, variation), family.instance(SMALL, 5, variation)
    other = family.instance(SMALL, 6, variation)
    assert torch.equal(one.start, same.start)
    assert one.description == same.description != other.description
    cellwise = one.cellwise
    linear = vectors.times(cellwise.first_slope(), cellwise.gradients(one.start))
    assert float(cellwise.imbalance(linear).norm()) < 1e-10 * float(linear.norm())
    assert 0.6 * SMALL < cellwise.nodes < 1.5 * SMALL


@every_case
def test_the_imbalance_of_the_law_is_the_residual(family):
    instance = family.instance(SMALL, 1)
    u = instance.start + 0.01 * torch.sin(torch.arange(len(instance.start), dtype=torch.float64))
    cellwise = instance.cellwise
    gradients = cellwise.gradients(u)
    residual = instance.problem.residual(u, instance.params)
    assert torch.allclose(cellwise.imbalance(cellwise.law.flux(gradients)), residual, rtol=1e-9, atol=1e-14)
    tangent = instance.problem.tangent(u, instance.params)
    found = cellwise.matrix(linearised(cellwise, gradients)[0]).values
    assert torch.allclose(found, tangent.values, rtol=1e-9, atol=1e-12 * float(found.abs().max()))


@every_case
def test_systems_about_the_solution_give_the_solution_whatever_the_network_says(family):
    instance = family.instance(SMALL, 2)
    u = solved(instance)
    cellwise = instance.cellwise
    again = following(cellwise, cellwise.begin(u), random_network())
    assert float((again.u - u).norm()) < 1e-6 * float(u.norm())


@every_case
def test_linearising_about_wrong_gradients_errs_to_second_order(family):
    """Gradients that err by e, and belong to no u, give a u that errs by O(e^2)."""
    instance = family.instance(SMALL, 2)
    cellwise = instance.cellwise
    u = solved(instance)
    gradients = cellwise.gradients(u)
    noise = torch.randn(gradients.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for size in (2e-2, 1e-2, 5e-3):
        found = cellwise.linear_solution(*linearised(cellwise, gradients * (size * noise).exp()))
        errors.append(float((found - u).norm()))
    orders = [torch.log2(torch.tensor(a / b)).item() for a, b in itertools.pairwise(errors)]
    assert min(orders) > 1.8


@every_case
def test_units_do_not_change_the_next_system(family):
    network = random_network()

    def second(family):
        instance = family.instance(SMALL, 3)
        guess = instance.cellwise.begin(instance.start)
        for _ in range(2):
            guess = following(instance.cellwise, guess, network)
        return guess.u

    reference = second(family)
    scaled = second(replace(family, head_unit=1e4, conductance_unit=3e-7))
    assert torch.allclose(scaled / 1e4, reference, rtol=1e-6, atol=1e-6 * float(reference.abs().max()))
