"""Networks: closed-form heads, balance of fluxes, nonlinear laws, gradients, and graphs that cannot be solved."""

from __future__ import annotations

import math

import pytest
import torch
from torch_geometric.data import Data

from bilevel.implicit.solve import argmin
from bilevel.report import BilevelError, InputError
from physics.constitutive.flow import FlowLaw, Forchheimer, Linear, PowerLaw
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.flow.cellwise import FlowCells
from physics.flow.network import FlowNetwork
from physics.flow.time_stepping import march
from physics.flow.time_steps import TimeSteps
from physics.local.parameters import LawParameter, LawParameters


def chain_graph(n):
    return Graph(n, torch.stack((torch.arange(n - 1), torch.arange(1, n)), 1))


def loops():
    """Six nodes, nine pipes, two loops and more."""
    edges = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0], [1, 4], [0, 3], [2, 5]])
    return Graph.from_data(Data(edge_index=edges.mT, num_nodes=6))


LAWS = [
    (Linear(), {"conductance": torch.linspace(0.5, 2.0, 9)}),
    (PowerLaw.from_loss_exponent(1.852), {"conductance": torch.linspace(0.5, 2.0, 9)}),
    (PowerLaw(3.5), {"conductance": torch.linspace(0.5, 2.0, 9)}),
    (Forchheimer(), {"linear": torch.linspace(0.2, 1.0, 9), "quadratic": torch.linspace(3.0, 1.0, 9)}),
]


@pytest.mark.parametrize(("law", "flow"), LAWS)
def test_fluxes_balance_the_inflows(law, flow):
    graph = loops()
    network = FlowNetwork(graph, law, [Dirichlet("tank", torch.tensor([0]), value=10.0)])
    inflow = torch.tensor([0.0, -0.3, -0.5, 0.0, -0.2, 0.1])
    params = {"flow": flow, "inflow": inflow}
    u = argmin(network, 10.0 + network.start(), params).u
    flux = network.flux(u, params)
    balance = inflow.index_add(0, graph.edges[:, 0], -flux).index_add(0, graph.edges[:, 1], flux)
    torch.testing.assert_close(balance[1:], torch.zeros(5), rtol=0.0, atol=1e-8)
    assert float(balance[0]) == pytest.approx(-0.9)  # what the tank delivers


def test_pipes_in_series_share_the_head_loss():
    n, resistance = 5, torch.tensor([1.0, 2.0, 0.5, 4.0])
    ends = Dirichlet("ends", torch.tensor([0, 4]), value=torch.tensor([[3.0], [0.0]]))
    loss = 1.852
    law = PowerLaw.from_loss_exponent(loss, threshold=1e-9)
    network = FlowNetwork(chain_graph(n), law, [ends])
    params = {"flow": {"conductance": resistance ** (-1.0 / loss)}}
    flux = network.flux(argmin(network, torch.linspace(2.0, 1.0, 3), params).u, params)
    torch.testing.assert_close(flux, ((3.0 / resistance.sum()) ** (1.0 / loss)).expand(4), rtol=1e-8, atol=0.0)


def test_forchheimer_in_series():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    ends = Dirichlet("ends", torch.tensor([0, 2]), value=torch.tensor([[4.0], [0.0]]))
    network = FlowNetwork(chain_graph(3), Forchheimer(), [ends])
    params = {"flow": {"linear": a, "quadratic": b}}
    flux = network.flux(argmin(network, torch.ones(1), params).u, params)
    exact = (-3.0 + math.sqrt(9.0 + 4.0 * 3.5 * 4.0)) / 7.0  # 3 q + 3.5 q^2 = 4
    torch.testing.assert_close(flux, torch.full((2,), exact), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize(("law", "flow"), LAWS)
def test_gradient_in_parameters_inflows_and_fixed_heads(law, flow):
    network = FlowNetwork(loops(), law, [Dirichlet("tank", torch.tensor([0]))])
    weights = torch.randn(5)
    values = {**flow, "inflow": torch.tensor([0.0, -0.3, -0.5, 0.0, -0.2, 0.1]), "tank": torch.tensor(10.0)}

    def observed(given):
        params = {"flow": {k: given[k] for k in flow}, "inflow": given["inflow"], "boundary": {"tank": given["tank"]}}
        return (weights * argmin(network, 10.0 + network.start(), params).u).sum()

    tracked = {name: value.clone().requires_grad_() for name, value in values.items()}
    gradients = dict(zip(tracked, torch.autograd.grad(observed(tracked), list(tracked.values()))))
    for name, value in values.items():
        direction = torch.randn_like(value)
        step = 1e-5
        up, down = ({**values, name: value + s * step * direction} for s in (1.0, -1.0))
        difference = float(observed(up) - observed(down)) / (2.0 * step)
        assert float((gradients[name] * direction).sum()) == pytest.approx(difference, rel=1e-6, abs=1e-7)


def test_a_network_fills_a_tank():
    """dh/dt = (1 - h) c / A."""
    network = FlowNetwork(chain_graph(2), Linear(), [Dirichlet("source", torch.tensor([0]), value=1.0)], transient=True)
    params = {"flow": {"conductance": torch.tensor(2.0)}, "storage": {"storage": torch.tensor(4.0)}}
    times = torch.linspace(0.0, 3.0, 31).numpy()
    heads = march(network, network.start(), params, TimeSteps(times)).observed[:, 0]
    torch.testing.assert_close(heads, 1.0 - torch.exp(-0.5 * torch.from_numpy(times[1:])), rtol=1e-4, atol=1e-5)


def test_floating_network_has_zero_mean_and_needs_balance():
    network = FlowNetwork(loops(), Linear(), floating=True)
    params = {"flow": {"conductance": torch.tensor(1.0)}, "inflow": torch.tensor([1.0, 0.0, 0.0, -1.0, 0.0, 0.0])}
    u = argmin(network, network.start(), params).u
    assert abs(float(u.mean())) < 1e-12
    flux = network.flux(u, params)
    assert float(flux[0] - flux[5] + flux[7]) == pytest.approx(1.0)
    with pytest.raises(BilevelError):
        argmin(network, network.start(), {**params, "inflow": torch.ones(6)})


def test_isolated_node_is_named():
    graph = Graph(4, torch.tensor([[0, 1], [1, 3]]))
    with pytest.raises(InputError, match="node 2 has no edge"):
        FlowNetwork(graph, Linear(), [Dirichlet("tank", torch.tensor([0]))])


def test_part_without_fixed_head_is_named():
    graph = Graph(5, torch.tensor([[0, 1], [2, 3], [3, 4]]))
    with pytest.raises(InputError, match=r"node 2 is connected to no fixed head \(3 such nodes\)"):
        FlowNetwork(graph, Linear(), [Dirichlet("tank", torch.tensor([0]))])
    with pytest.raises(InputError, match="node 0 is connected to no fixed head"):
        FlowNetwork(loops(), Linear())


class Pump(FlowLaw):
    """Lifts the head by `lift` from the first node to the second: flux = conductance (drop + lift)."""

    parameters = LawParameters(LawParameter("conductance", lower=0.0), LawParameter("lift", "m"))

    def potential(self, drop, params):
        return 0.5 * params["conductance"] * (drop + params["lift"]) ** 2


@pytest.mark.parametrize("reverse", [False, True])
def test_a_pump_lifts_the_head_from_its_first_node_to_its_second(reverse):
    """Between a lake at 2 m and a demand of 3 m3/d: head = 2 + lift - 3 / conductance, or the lift downwards."""
    graph = Graph(2, torch.tensor([[1, 0] if reverse else [0, 1]]))
    network = FlowNetwork(graph, Pump(), [Dirichlet("lake", torch.tensor([0]), value=2.0)])
    params = {
        "flow": {"conductance": torch.tensor(4.0), "lift": torch.tensor(24.0)},
        "inflow": torch.tensor([0.0, -3.0]),
    }
    u = argmin(network, network.start(), params).u
    assert float(u) == pytest.approx(2.0 + (-24.0 if reverse else 24.0) - 0.75, rel=1e-10)
    assert float(network.flux(u, params)) == pytest.approx(-3.0 if reverse else 3.0, rel=1e-10)


def test_a_pump_has_no_first_guess():
    network = FlowNetwork(chain_graph(3), Pump(), [Dirichlet("lake", torch.tensor([0]), value=2.0)])
    flow = {"conductance": torch.tensor(4.0), "lift": torch.tensor(24.0)}
    with pytest.raises(InputError, match="Pump is not odd in the drop"):
        FlowCells(network, {"flow": flow}, 1.0)


@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan])
@pytest.mark.parametrize("law", [Linear(), PowerLaw(1.5), PowerLaw(3.0)])
def test_conductances_that_are_none_are_refused(law, value):
    ends = Dirichlet("ends", torch.tensor([0, 2]), value=torch.tensor([[10.0], [0.0]]))
    network = FlowNetwork(chain_graph(3), law, [ends])
    with pytest.raises(InputError, match="conductance"):
        argmin(network, network.start(), {"flow": {"conductance": torch.tensor([1.0, value])}})


def street_grid(side):
    number = torch.arange(side * side).reshape(side, side)
    across = torch.stack((number[:, :-1].reshape(-1), number[:, 1:].reshape(-1)), 1)
    down = torch.stack((number[:-1].reshape(-1), number[1:].reshape(-1)), 1)
    return Graph(side * side, torch.cat((across, down)))


RING = Graph(4, torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]))


@pytest.mark.parametrize(("exponent", "resistance"), [(2.0, 0.0826 * 0.02), (1.852, 10.67 / 120.0**1.852)])
@pytest.mark.parametrize(
    ("graph", "fixed", "seeds"),
    [
        pytest.param(street_grid(5), {0: 50.0, 24: 45.0}, 5, id="few grids"),
        pytest.param(RING, {0: 50.0}, 8, id="few loops"),
        pytest.param(street_grid(5), {0: 50.0, 24: 45.0}, 40, id="grids", marks=pytest.mark.slow),
        pytest.param(RING, {0: 50.0}, 100, id="loops", marks=pytest.mark.slow),
    ],
)
def test_turbulent_pipes_are_solved_from_the_default_start(graph, fixed, seeds, exponent, resistance):
    """Darcy-Weisbach at a constant factor and Hazen-Williams; Newton's method went back and forth on most of these."""
    tanks = Dirichlet("tanks", torch.tensor(list(fixed)), value=torch.tensor([[head] for head in fixed.values()]))
    network = FlowNetwork(graph, PowerLaw.from_loss_exponent(exponent), [tanks])
    pipes, failed = len(graph.edges), []
    for seed in range(seeds):
        chance = torch.Generator().manual_seed(seed)
        diameter = 10.0 ** (0.6 * torch.rand(pipes, generator=chance) - 0.9)
        length = 100.0 + 900.0 * torch.rand(pipes, generator=chance)
        demand = 0.01 * torch.rand(graph.nodes, generator=chance)
        conductance = (resistance * length / diameter**5) ** (-1.0 / exponent)
        params = {"flow": {"conductance": conductance}, "inflow": -demand}
        report = argmin(network, network.start(), params, on_fail="ignore").report
        if not report.converged:
            failed.append(seed)
    assert not failed
