"""Learned steps: invariances, safeguards, any descent, and exact gradients whatever the network says."""

import math

import pytest
import torch

import bilevel
from bilevel.acceleration.family import NodeGraph
from bilevel.acceleration.learned_step import LearnedStep, displacement, propose
from bilevel.acceleration.networks.node_network import NodeNetwork, View
from bilevel.implicit.strategies import Unrolled
from bilevel.linalg.preconditioner import Jacobi, Multigrid
from bilevel.problem import Energy, Residual
from bilevel.report import BilevelError, InputError
from bilevel.solvers import LBFGS, GradientDescent, Newton, PreconditionedGradient
from bilevel.solvers.evaluations import Evaluations, Tolerance
from bilevel.solvers.steps import BarzilaiBorwein, Constant
from physics.families.power_law import PowerLawFlow

NODES = 12


def ring(order=None, unit=1.0):
    """A ring of nodes with three chords; node features tell every node apart."""
    tail = torch.arange(NODES)
    edges = torch.cat((torch.stack((tail, (tail + 1) % NODES)), torch.tensor([[0, 2, 5], [6, 9, 11]])), 1)
    place = torch.arange(NODES) if order is None else order
    number = torch.empty(NODES, dtype=torch.long)
    number[place] = torch.arange(NODES)
    features = torch.linspace(-1.0, 1.0, NODES, dtype=torch.float64)[place, None]
    weights = torch.linspace(0.5, 2.0, edges.shape[1], dtype=torch.float64)
    load = torch.sin(torch.arange(NODES, dtype=torch.float64))[place]
    graph = NodeGraph(number[edges], features, torch.log(weights)[:, None], torch.arange(NODES), lambda u: u[:, None])

    def energy(u, params):
        difference = (u[graph.edges[1]] - u[graph.edges[0]]) / unit
        return params * ((weights * difference**4).sum() / 4 + 0.05 * ((u / unit) ** 2).sum() - (load * u / unit).sum())

    return energy, graph


def random_network(scale=1.0, seed=0):
    torch.manual_seed(seed)
    network = NodeNetwork(1, 1)
    with torch.no_grad():
        for head in (network.factor, network.whole):
            head.weight.normal_(0.0, scale)
            head.bias.normal_(0.0, scale)
    return network


def first_move(energy, graph, network, params=None, scale=1.0, order=None):
    params = torch.ones((), dtype=torch.float64) if params is None else params
    u = scale * torch.cos(torch.arange(NODES, dtype=torch.float64))
    u = u if order is None else u[order]
    evaluations = Evaluations(Energy(energy).for_unknown(u), params)
    point = evaluations.point(u)
    direction = -torch.linalg.solve(evaluations.tangent(u).matrix, point.residual)
    last = (
        0.3
        * direction.roll(0)
        * torch.linspace(0.5, 1.5, NODES, dtype=torch.float64)[slice(None) if order is None else order]
    )
    proposal = propose(network, View(graph), point, direction, last)
    return displacement(proposal, graph, direction, last).detach()


@pytest.mark.parametrize(("unit", "stiffness"), [(1e6, 1.0), (1e-7, 1.0), (1.0, 1e9), (3e4, 2e-11)])
def test_units_and_energy_scale_do_not_matter(unit, stiffness):
    network = random_network(0.3)
    reference = first_move(*ring(), network)
    energy, graph = ring(unit=unit)
    params = torch.tensor(stiffness, dtype=torch.float64)
    scaled = first_move(energy, graph, network, params, scale=unit)
    assert torch.allclose(scaled / unit, reference, rtol=1e-6, atol=1e-6 * float(reference.abs().max()))


def test_the_order_of_nodes_does_not_matter():
    network = random_network(0.3)
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(3))
    reference = first_move(*ring(), network)
    permuted = first_move(*ring(order), network, order=order)
    assert torch.allclose(permuted, reference[order], rtol=1e-6, atol=1e-6 * float(reference.abs().max()))


@pytest.mark.parametrize("solver", [Newton, LBFGS, GradientDescent])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_any_descent_converges_under_any_network(solver, seed):
    energy, graph = ring()
    fallback = BarzilaiBorwein() if solver is GradientDescent else solver().step
    step = LearnedStep(random_network(2.0, seed), graph, fallback=fallback)
    u0 = torch.linspace(-1.0, 2.0, NODES, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    expected = bilevel.argmin(energy, u0, one, solver=Newton()).u
    solution = bilevel.argmin(energy, u0, one, solver=solver(step=step))
    assert solution.report.converged
    assert torch.allclose(solution.u, expected, atol=1e-7)
    counts = solution.report.counts
    assert counts.inferences >= solution.report.iterations - counts.fallbacks
    assert 0 < counts.fallbacks <= solution.report.iterations


@pytest.mark.parametrize("preconditioner", [Jacobi(), Multigrid()])
def test_preconditioned_gradients_on_a_sparse_problem_end_at_newtons_solution(preconditioner):
    instance = PowerLawFlow(exponent=2.1).instance(60, 4)
    torch.manual_seed(1)
    network = NodeNetwork(instance.graph.node_features.shape[1], instance.graph.edge_features.shape[1])
    for head in (network.factor, network.whole):
        torch.nn.init.normal_(head.weight, std=0.1)
    solver = PreconditionedGradient(
        preconditioner=preconditioner,
        step=LearnedStep(network, instance.graph),
        tolerance=Tolerance(1e-5),
        max_iterations=300,
        check_minimum=False,
    )
    found = solver.solve(instance.problem, instance.start, instance.params)
    expected = Newton(tolerance=Tolerance(1e-11)).solve(instance.problem, instance.start, instance.params)
    assert found.report.converged, found.report.sentence
    assert 0 < found.report.counts.inferences >= found.report.counts.fallbacks
    assert torch.allclose(found.u, expected.u, atol=1e-3)


def test_an_untrained_network_takes_the_full_newton_step():
    energy, graph = ring()
    u0 = torch.linspace(-1.0, 2.0, NODES, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    untrained = LearnedStep(NodeNetwork(1, 1), graph, safeguard=False)  # full steps may climb on the way
    learned = bilevel.argmin(energy, u0, one, solver=Newton(step=untrained))
    plain = bilevel.argmin(energy, u0, one, solver=Newton(step=Constant()))
    # A single-precision exp(0) may differ from 1 in the last digit, so only the way there is the same.
    assert learned.report.history[:8] == pytest.approx(plain.report.history[:8], rel=1e-4)
    assert torch.allclose(learned.u, plain.u, atol=1e-8)
    assert learned.report.counts.fallbacks == 0


def test_factors_above_one_end_the_slow_contraction_of_newton():
    """On sum u^4 Newton contracts by 2/3 a step; all factors at p - 1 = 3 jump to the solution at once."""
    graph = ring()[1]
    network = NodeNetwork(1, 1)
    with torch.no_grad():
        network.factor.bias.fill_(math.atanh(math.log(3.0) / math.log(8.0)))
    u0 = torch.linspace(1.0, 2.0, NODES, dtype=torch.float64)

    def energy(u):
        return (u**4).sum() / 4

    tolerance = Tolerance(relative=1e-9)
    plain = bilevel.argmin(energy, u0, solver=Newton(tolerance=tolerance, check_minimum=False))
    learned = bilevel.argmin(
        energy, u0, solver=Newton(LearnedStep(network, graph), tolerance=tolerance, check_minimum=False)
    )
    assert plain.report.iterations > 10
    assert learned.report.iterations <= 3


def test_without_the_safeguard_a_bad_network_diverges_and_with_it_none_does():
    energy, graph = ring()
    network = NodeNetwork(1, 1)
    with torch.no_grad():
        network.factor.bias.fill_(5.0)  # every node moves eight times as far as Newton's method says
    u0 = torch.linspace(-1.0, 2.0, NODES, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    loose = Newton(step=LearnedStep(network, graph, safeguard=False), max_iterations=60)
    failed = bilevel.argmin(energy, u0, one, solver=loose, on_fail="ignore").report
    assert not failed.converged
    assert failed.counts.fallbacks == 0
    assert bilevel.argmin(energy, u0, one, solver=Newton(step=LearnedStep(network, graph))).report.converged


def test_a_root_problem_is_guarded_by_its_residual():
    graph = ring()[1]
    skew = torch.diag(torch.ones(NODES - 1, dtype=torch.float64), 1)
    matrix = torch.eye(NODES, dtype=torch.float64) * 2 + skew - skew.mT

    def residual(u):
        return matrix @ u + u**3 - 1.0

    u0 = torch.full((NODES,), 3.0, dtype=torch.float64)
    step = LearnedStep(random_network(2.0, 1), graph)
    solution = bilevel.root(Residual(residual), u0, solver=Newton(step=step))
    assert solution.report.converged
    assert float(torch.linalg.vector_norm(residual(solution.u))) < 1e-7
    assert solution.report.counts.fallbacks > 0


def test_gradients_do_not_depend_on_the_step():
    energy, graph = ring()
    u0 = torch.linspace(-1.0, 2.0, NODES, dtype=torch.float64)

    def gradient(solver):
        stiffness = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)

        def loaded(u, k):
            return energy(u, k) + 0.3 * (u**2).sum()

        solution = bilevel.argmin(loaded, u0, stiffness, solver=solver)
        return torch.autograd.grad((solution.u**3).sum(), stiffness)[0]

    learned = gradient(Newton(step=LearnedStep(random_network(1.0), graph)))
    assert float(learned) == pytest.approx(float(gradient(Newton())), rel=1e-8)


def test_batches_and_unrolled_adjoints_are_refused():
    energy, graph = ring()
    step = LearnedStep(NodeNetwork(1, 1), graph)
    batch = Energy(lambda u: (u**4).sum(-1), batch_dims=1)
    with pytest.raises(BilevelError, match="one problem at a time"):
        bilevel.argmin(batch, torch.ones(2, NODES, dtype=torch.float64), solver=Newton(step=step))
    u0 = torch.linspace(-1.0, 2.0, NODES, dtype=torch.float64)
    with pytest.raises(BilevelError, match="unrolled adjoint"):
        bilevel.argmin(
            energy, u0, torch.ones((), dtype=torch.float64), solver=Newton(step=step), adjoint=Unrolled(last=3)
        )


def test_a_graph_with_edges_that_are_no_whole_numbers_is_refused():
    with pytest.raises(InputError, match="int64"):
        NodeGraph(torch.zeros(2, 3), torch.zeros(4, 0), torch.zeros(3, 0), torch.arange(4), lambda u: u[:, None])
    with pytest.raises(InputError, match="3 edges but 2 rows"):
        NodeGraph(
            torch.zeros(2, 3, dtype=torch.long), torch.zeros(4, 0), torch.zeros(2, 0), torch.arange(4), lambda u: u
        )
