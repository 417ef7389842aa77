"""Pipe flow: derivatives against finite differences, friction against its formulas, pump curves."""

from __future__ import annotations

import math

import pytest
import torch

import bilevel
from bilevel.report import ConvergenceError, InputError
from physics.flow.water.friction import ChezyManning, DarcyWeisbach, HazenWilliams
from physics.flow.water.network import (
    Demand,
    FixedHead,
    Junction,
    LinkStatus,
    Pipe,
    Pump,
    Valve,
    ValveKind,
    WaterNetwork,
)
from physics.flow.water.pipe_flow import PipeFlow
from physics.flow.water.pump_curves import power_pump, pump_curve


def small_network(friction):
    rough = {"H-W": 110.0, "D-W": 3e-4, "C-M": 0.012}[friction.name]
    pipe = lambda name, a, b, length, d, **more: Pipe(name, (a, b), length, d, rough, **more)  # noqa: E731
    curve, design = pump_curve([(0.05, 50.0)])
    return WaterNetwork(
        [Junction(name, 5.0, (Demand(demand),)) for name, demand in zip("ABCDE", (0.01, 0.01, 0.02, 0.01, 0.01))],
        [FixedHead("lake", 10.0), FixedHead("tower", 50.0)],
        [
            pipe("1", "A", "B", 500.0, 0.25, minor=2.0),
            pipe("2", "B", "C", 600.0, 0.2),
            pipe("3", "A", "C", 700.0, 0.2, one_way=True),
            pipe("4", "C", "tower", 300.0, 0.25),
            pipe("5", "D", "E", 400.0, 0.15),
        ],
        [Pump("p", ("lake", "A"), curve, design)],
        [Valve("prv", ("B", "D"), ValveKind.PRV, 0.15, 20.0), Valve("fcv", ("C", "E"), ValveKind.FCV, 0.1, 0.004)],
        friction,
    )


@pytest.mark.parametrize("friction", [HazenWilliams(), DarcyWeisbach(), ChezyManning()], ids=lambda f: f.name)
def test_derivatives_in_all_parameters(friction):
    flow = PipeFlow(small_network(friction))
    values = {name: value for name, value in flow.parameters().items() if value.numel()}
    chance = torch.Generator().manual_seed(1)
    weights = torch.randn(flow.start().shape, generator=chance) * flow.start().abs().clamp(min=1e-3) ** -1
    state = lambda given: flow.solve({**values, **given}).u  # noqa: E731
    for name, value in values.items():
        size = value.abs().clamp(min=1e-3) * (1.0 + torch.rand(value.shape, generator=chance))
        near = [state({name: value + k * 1e-3 * size}) for k in (-2, -1, 1, 2)]
        difference = (8.0 * (near[2] - near[1]) - (near[3] - near[0])) / 12e-3
        forward = torch.func.jvp(lambda v, name=name: state({name: v}), (value,), (size,))[1]
        torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-6 * float(forward.abs().max()))
        tracked = value.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((weights * state({name: tracked})).sum(), tracked)
        assert float((gradient * size).sum()) == pytest.approx(float((weights * forward).sum()), rel=1e-6, abs=1e-8)


def test_second_derivatives():
    flow = PipeFlow(small_network(DarcyWeisbach()))
    given = flow.parameters()

    def misfit(factor):
        return flow.solve({**given, "roughness": factor * given["roughness"]}).u[8:].square().sum()

    assert bilevel.check_gradient(misfit, torch.ones(5), verbose=False).ok
    factor = torch.ones(5, requires_grad=True)
    direction = torch.linspace(-1.0, 1.0, 5)
    slope = lambda at: torch.autograd.grad(misfit(at), at, create_graph=True)[0] @ direction  # noqa: E731
    (second,) = torch.autograd.grad(slope(factor), factor)
    step = 1e-3
    up, down = ((1.0 + s * step * direction).requires_grad_() for s in (1.0, -1.0))
    difference = float((slope(up) - slope(down)).detach()) / (2.0 * step)
    assert float(second @ direction) == pytest.approx(difference, rel=1e-4)


def test_heads_balance_and_the_start_does_not_matter():
    network = small_network(HazenWilliams())
    flow = PipeFlow(network)
    params = flow.parameters()
    cold, warm = flow.solve(params), flow.solve(params, 1e-3 * flow.start())
    torch.testing.assert_close(cold.u, warm.u, rtol=1e-7, atol=1e-9)
    flows = dict(zip(network.link_numbers, flow.flows(cold.u).tolist()))
    assert flows["p"] - flows["4"] == pytest.approx(0.06)
    assert flows["fcv"] == pytest.approx(0.004)
    heads = dict(zip(network.nodes, flow.heads(cold.u, params).tolist()))
    assert heads["D"] == pytest.approx(25.0)
    assert heads["A"] == pytest.approx(10.0 + 4.0 / 3.0 * 50.0 - 50.0 / 3.0 * (flows["p"] / 0.05) ** 2, rel=1e-6)


def test_a_start_that_is_not_finite_is_refused():
    flow = PipeFlow(small_network(HazenWilliams()))
    nowhere = torch.full_like(flow.start(), torch.nan)
    with pytest.raises(ConvergenceError, match="NaN or infinite and shorter steps did not help"):
        flow.solve(flow.parameters(), nowhere)


def test_laminar_flow_is_hagen_and_poiseuille():
    """h = 128 nu L q / (pi g D^4)."""
    law = DarcyWeisbach(viscosity=1e-6)
    length, diameter, flow = torch.tensor(100.0), torch.tensor(0.1), torch.tensor([-1e-5, 1e-5])
    exact = 128.0 * 1e-6 * 100.0 * flow / (math.pi * 32.2 * 0.3048 * 0.1**4)
    torch.testing.assert_close(law.at(length, diameter, torch.tensor(1e-4)).loss(flow), exact)


def test_friction_is_smooth_between_laminar_and_turbulent():
    law = DarcyWeisbach(viscosity=1e-6)
    length, diameter, rough = torch.tensor(100.0), torch.tensor(0.1), torch.tensor(1e-4)
    slope = torch.func.grad(lambda q: law.at(length, diameter, rough).loss(q))
    for reynolds in (2000.0, 4000.0):
        flow = torch.tensor(reynolds * math.pi / 4.0 * 0.1 * 1e-6)
        below, above = flow * (1 - 1e-9), flow * (1 + 1e-9)
        assert float(law.at(length, diameter, rough).loss(below)) == pytest.approx(
            float(law.at(length, diameter, rough).loss(above)), rel=1e-6
        )
        assert float(slope(below)) == pytest.approx(float(slope(above)), rel=1e-4)


def test_hazen_williams_and_manning_in_metric_units():
    """10.67 L q^1.852 / (C^1.852 D^4.871) and 10.29 n^2 L q^2 / D^(16/3), to the digits of EPANET's coefficients (1.49 for 1.486)."""
    q, length, d = torch.tensor(0.05), torch.tensor(1000.0), torch.tensor(0.3)
    loss = HazenWilliams().at(length, d, torch.tensor(120.0)).loss(q)
    assert float(loss) == pytest.approx(10.67 * 1000.0 * 0.05**1.852 / (120.0**1.852 * 0.3**4.871), rel=2e-3)
    loss = ChezyManning().at(length, d, torch.tensor(0.012)).loss(q)
    assert float(loss) == pytest.approx(10.29 * 0.012**2 * 1000.0 * 0.05**2 / 0.3 ** (16 / 3), rel=1e-2)


@pytest.mark.parametrize("friction", [HazenWilliams(), DarcyWeisbach(), ChezyManning()], ids=lambda f: f.name)
def test_slopes_of_losses_are_their_derivatives(friction):
    """Pipes in all regimes, a pump below and above its least flow, valves; forwards, backwards and at rest."""
    flow = PipeFlow(small_network(friction))
    given = flow.parameters()
    for factor in (-2.0, -1e-4, 0.0, 1e-9, 0.3, 1.0):
        q = factor * flow.flows(flow.start()).abs()
        expected = torch.func.grad(lambda q: flow.loss(q, given).sum())(q)
        torch.testing.assert_close(flow.loss_slope(q, given), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("friction", [HazenWilliams(), DarcyWeisbach(), ChezyManning()], ids=lambda f: f.name)
def test_numbers_for_newton_are_those_that_carry_derivatives(friction):
    """In NumPy and in tensors, flowing both ways and at rest; the tangent is the residual's derivative."""
    flow = PipeFlow(small_network(friction), {"3": LinkStatus.OPEN, "4": LinkStatus.CLOSED})
    given = flow.parameters()
    numeric = flow.prepared(given)
    u = flow.start()
    for factor in (1.0, -0.3, 0.0):
        at = torch.cat((factor * u[:8], u[8:] - torch.arange(5.0)))
        torch.testing.assert_close(numeric.residual(at, given), flow.residual(at, given), rtol=1e-12, atol=1e-12)
        tangent = numeric.tangent(at, given).csr().toarray()
        exact = torch.func.jacrev(lambda v: flow.residual(v, given))(at)
        torch.testing.assert_close(torch.from_numpy(tangent), exact, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(torch.from_numpy(flow.tangent(at, given).csr().toarray()), exact)
        sizes = flow.magnitude(at, given)
        torch.testing.assert_close(numeric.magnitude(at, given), sizes)
        higher = {**given, "heads": given["heads"] + 1000.0}
        torch.testing.assert_close(flow.magnitude(at + torch.tensor([0.0] * 8 + [1000.0] * 5), higher), sizes)


def test_pump_curves_go_through_their_points():
    lift = lambda piece, q: piece[1] - piece[2] * q ** piece[3]  # noqa: E731
    (piece,), _ = pump_curve([(0.0, 80.0), (0.04, 70.0), (0.08, 45.0)])
    assert [lift(piece, q) for q in (0.0, 0.04, 0.08)] == pytest.approx([80.0, 70.0, 45.0])
    pieces, _ = pump_curve([(0.01, 75.0), (0.02, 70.0), (0.04, 55.0), (0.06, 30.0)])
    assert [lift(piece, q) for piece, q in zip(pieces, (0.01, 0.03, 0.05))] == pytest.approx([75.0, 62.5, 42.5])
    (piece,), _ = power_pump(0.4)
    assert lift(piece, 0.01) == pytest.approx(40.0)
    with pytest.raises(InputError, match="must increase"):
        pump_curve([(0.0, 50.0), (0.02, 60.0)])
    with pytest.raises(InputError, match="positive"):
        power_pump(0.0)
