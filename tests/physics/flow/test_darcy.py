"""Darcy flow and heat conduction on meshes: manufactured solutions, closed forms, time steps, gradients of fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import i0, k0

from bilevel.implicit.solve import argmin
from bilevel.report import InputError
from physics.discretisation import Shape, box, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.flow.darcy import DarcyFlow, HeatConduction
from physics.flow.time_stepping import BACKWARD_EULER, SDIRK2, SDIRK3, march
from physics.flow.time_steps import TimeSteps


def all_around(mesh):
    return torch.unique(torch.cat([mesh.nodes_on(name) for name in mesh.boundaries]))


def l2_error(mesh, head, exact):
    operator = mesh.operator(gradient=False, value=True, quadrature=6)
    difference = operator.apply(head)[..., 0, 0] - exact(operator.positions())
    return float((operator.weights() * difference**2).sum().sqrt())


def manufactured(x):
    return torch.sin(math.pi * x[..., 0]) * torch.cos(math.pi * x[..., 1]) + x[..., 0]


def conductivity(x):
    return 1.0 + 0.5 * x[..., 0] + 0.3 * x[..., 1] ** 2


def source(x):
    """-div(k grad h) of the two above."""
    sin, cos = torch.sin, torch.cos
    px, py = math.pi * x[..., 0], math.pi * x[..., 1]
    hx, hy = math.pi * cos(px) * cos(py) + 1.0, -math.pi * sin(px) * sin(py)
    laplacian = -2.0 * math.pi**2 * sin(px) * cos(py)
    return -(conductivity(x) * laplacian + 0.5 * hx + 0.6 * x[..., 1] * hy)


@pytest.mark.parametrize("shape", [Shape.TRIANGLE, Shape.QUADRILATERAL])
@pytest.mark.parametrize(("order", "rate"), [(1, 1.9), (2, 2.8)])
def test_manufactured_solution(shape, order, rate):
    errors = []
    for n in (8, 16):
        mesh = rectangle(n, n, shape=shape, order=order)
        nodes = all_around(mesh)
        flow = DarcyFlow(mesh, [Dirichlet("edge", nodes, value=manufactured(mesh.coordinates[nodes]))])
        gradient = mesh.operator()
        params = {
            "flow": {"hydraulic_conductivity": conductivity(gradient.positions())},
            "source": source(flow.values.positions()),
        }
        head = flow.expand(argmin(flow, flow.start(), params).u, params)
        errors.append(l2_error(mesh, head, manufactured))
    found = math.log2(errors[0] / errors[1])
    print(shape.name, "order", order, "L2 rate", round(found, 3))
    assert found >= rate


@pytest.mark.parametrize(("order", "rate"), [(1, 1.9), (2, 2.8)])
def test_manufactured_solution_3d(order, rate):
    def exact(x):
        return torch.sin(2.0 * x[..., 0]) * torch.exp(x[..., 1]) * torch.cos(x[..., 2])

    errors = []
    for n in (3, 6):
        mesh = box(n, n, n, order=order)
        nodes = all_around(mesh)
        heat = HeatConduction(mesh, [Dirichlet("edge", nodes, value=exact(mesh.coordinates[nodes]))])
        params = {
            "flow": {"thermal_conductivity": torch.tensor(2.0)},
            "source": 2.0 * 4.0 * exact(heat.values.positions()),
        }
        temperature = heat.expand(argmin(heat, heat.start(), params).u, params)
        errors.append(l2_error(mesh, temperature, exact))
    assert math.log2(errors[0] / errors[1]) >= rate


def ring(n):
    """A flat ring 1 < r < 4, of height 1."""
    mesh = rectangle(n, 1, (3.0, 1.0), order=2)
    return mesh.moved(mesh.coordinates + torch.tensor([1.0, 0.0]))


def test_axisymmetric_well_is_a_logarithm():
    mesh = ring(24)
    flow = DarcyFlow(mesh, [Dirichlet("far", mesh.nodes_on("right"))], axisymmetric=True, inflow=["left"])
    params = {
        "flow": {"hydraulic_conductivity": torch.tensor(5.0)},
        "inflow_left": torch.tensor(-10.0 / (2.0 * math.pi)),
    }
    head = flow.expand(argmin(flow, flow.start(), params).u, params)[:, 0]
    exact = 10.0 / (2.0 * math.pi * 5.0) * torch.log(mesh.coordinates[:, 0] / 4.0)
    torch.testing.assert_close(head, exact, rtol=1e-4, atol=1e-5)


def test_leaky_ring_is_a_bessel_function():
    mesh = ring(24)
    flow = DarcyFlow(mesh, [Dirichlet("well", mesh.nodes_on("left"), value=-1.0)], axisymmetric=True, leaky=True)
    params = {
        "flow": {"hydraulic_conductivity": torch.tensor(2.0)},
        "leakage": {"resistance": torch.tensor(0.5), "head": torch.tensor(0.0)},
    }
    head = flow.expand(argmin(flow, flow.start(), params).u, params)[:, 0].numpy()
    from scipy.special import i1, k1

    r = mesh.coordinates[:, 0].numpy()  # leakage length 1; no flow at r = 4
    ratio = k1(4.0) / i1(4.0)
    exact = -(k0(r) + ratio * i0(r)) / (k0(1.0) + ratio * i0(1.0))
    np.testing.assert_allclose(head, exact, atol=1e-5)


def column(n):
    mesh = rectangle(n, 1, (1.0, 1.0 / n), order=2)
    return mesh, HeatConduction(mesh, [Dirichlet("ends", mesh.nodes_on("left"))], transient=True)


def test_decay_of_a_mode_and_order_in_time():
    mesh, heat = column(16)
    params = {
        "flow": {"thermal_conductivity": torch.tensor(2.0)},
        "storage": {"heat_capacity": torch.tensor(3.0)},
    }
    start = torch.sin(0.5 * math.pi * mesh.coordinates[:, 0])[heat.constraints.free]
    rate = 2.0 / 3.0 * (0.5 * math.pi) ** 2
    errors = []
    for steps in (4, 8):
        final = march(heat, start, params, TimeSteps(np.linspace(0.0, 0.8, steps + 1)), scheme=SDIRK2).final
        errors.append(float((final - math.exp(-0.8 * rate) * start).abs().max()))
    assert errors[1] < 2e-3
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)


def test_transient_flow_tends_to_the_steady_state():
    mesh = rectangle(6, 5, order=1)
    fixed = [Dirichlet("river", mesh.nodes_on("left"), value=2.0)]
    wells = torch.tensor([20])
    transient = DarcyFlow(mesh, fixed, transient=True, wells=wells)
    steady = DarcyFlow(mesh, fixed, wells=wells)
    given = {
        "flow": {"hydraulic_conductivity": torch.tensor(3.0)},
        "wells": torch.tensor([-1.5]),
        "source": torch.tensor(0.2),
    }
    params = {**given, "storage": {"specific_storage": torch.tensor(0.1)}}
    steps = TimeSteps(np.concatenate(([0.0], np.geomspace(1e-3, 50.0, 30))))
    end = march(transient, 2.0 + transient.start(), params, steps).final
    torch.testing.assert_close(end, argmin(steady, steady.start(), given).u, rtol=1e-7, atol=1e-8)


def test_gradient_of_a_field_of_log_conductivity_through_time():
    mesh = rectangle(4, 3, order=1)
    flow = DarcyFlow(
        mesh, [Dirichlet("river", mesh.nodes_on("left"), value=1.0)], transient=True, wells=torch.tensor([12])
    )
    steps = TimeSteps(np.array([0.0, 0.05, 0.15, 0.4]))

    def misfit(field, storage, rates):
        params = {
            "flow": {"hydraulic_conductivity": torch.exp(field)},
            "storage": {"specific_storage": storage},
        }
        heads = march(flow, 1.0 + flow.start(), params, steps, {"wells": rates}).observed
        return ((heads - 0.7) ** 2).sum()

    field = 0.3 * torch.randn(12)
    storage, rates = torch.tensor(0.5), torch.tensor([[-0.5], [-0.2], [-1.0]])
    inputs = [x.clone().requires_grad_() for x in (field, storage, rates)]
    gradients = torch.autograd.grad(misfit(*inputs), inputs)
    for k, (x, gradient) in enumerate(zip((field, storage, rates), gradients)):
        direction = torch.randn_like(x)
        moved = [
            [y + s * direction if i == k else y for i, y in enumerate((field, storage, rates))] for s in (1e-5, -1e-5)
        ]
        difference = (misfit(*moved[0]) - misfit(*moved[1])) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-6, abs=1e-9)


def test_a_field_without_a_level_must_be_declared():
    mesh = rectangle(3, 3)
    with pytest.raises(InputError, match="floating"):
        DarcyFlow(mesh)
    flow = DarcyFlow(mesh, floating=True, wells=torch.tensor([0, 15]))
    params = {"flow": {"hydraulic_conductivity": torch.tensor(1.0)}, "wells": torch.tensor([1.0, -1.0])}
    head = argmin(flow, flow.start(), params).u
    assert abs(float(head.mean())) < 1e-12
    assert float(head[0] - head[15]) > 1.0


def test_storage_without_a_time_step_is_refused():
    mesh = rectangle(2, 2)
    flow = DarcyFlow(mesh, transient=True)
    params = {
        "flow": {"hydraulic_conductivity": torch.tensor(1.0)},
        "storage": {"specific_storage": torch.tensor(1.0)},
    }
    with pytest.raises(InputError, match="time steps"):
        flow.value(flow.start(), params)


def test_missing_conductivity_names_it():
    mesh = rectangle(2, 2)
    flow = DarcyFlow(mesh, [Dirichlet("river", mesh.nodes_on("left"))])
    with pytest.raises(InputError, match="hydraulic_conductivity"):
        argmin(flow, flow.start(), {})


def tidal_aquifer(cells: int = 40) -> tuple[DarcyFlow, dict[str, object]]:
    mesh = rectangle(cells, 1, (200.0, 200.0 / cells))
    flow = DarcyFlow(mesh, [mesh.fixed("left"), mesh.fixed("right")], transient=True)
    params = {
        "flow": {"hydraulic_conductivity": torch.tensor(100.0)},
        "storage": {"specific_storage": torch.tensor(0.05)},
    }
    return flow, params


def tide(t: torch.Tensor, period: float = 0.5) -> dict[str, object]:
    return {"boundary": {"left": torch.sin(2.0 * math.pi / period * t)}}


def exact_tide(x: torch.Tensor, t: torch.Tensor, period: float = 0.5, terms: int = 4000) -> torch.Tensor:
    """Head in a slab of 200 m between sin(wt) and 0, from rest: Duhamel's sum (Carslaw & Jaeger 1959, section 3.5)."""
    n = torch.arange(1, terms + 1)
    w, rate = 2.0 * math.pi / period, 2000.0 * (n * math.pi / 200.0) ** 2
    forced = (rate * torch.cos(w * t) + w * torch.sin(w * t) - rate * torch.exp(-rate * t)) / (rate**2 + w**2)
    steady = (1.0 - x / 200.0) * torch.sin(w * t)
    return steady - (2.0 / math.pi * w / n * torch.sin(n * math.pi * x[:, None] / 200.0) * forced).sum(-1)


@pytest.mark.parametrize(("scheme", "bound"), [(BACKWARD_EULER, 0.04), (SDIRK2, 0.0105), (SDIRK3, 0.007)])
def test_a_tide_at_a_boundary(scheme, bound):
    flow, params = tidal_aquifer()
    steps = TimeSteps(np.linspace(0.0, 1.0, 41))
    heads = march(flow, flow.start(), params, steps, in_time=tide, scheme=scheme).observed
    x = rectangle(40, 1, (200.0, 5.0)).coordinates[flow.constraints.free, 0]
    times = torch.from_numpy(steps.times[1:])
    errors = [float((heads[k] - exact_tide(x, t)).abs().max()) for k, t in enumerate(times)]
    print(f"{scheme.order}: {max(errors):.4f}")
    assert max(errors) < bound


def test_gradient_through_a_varying_boundary_and_what_is_refused():
    flow, params = tidal_aquifer(4)
    steps = TimeSteps(np.linspace(0.0, 0.3, 4))

    def final(amplitude):
        def level(t):
            return {"boundary": {"left": amplitude * tide(t)["boundary"]["left"]}}

        return march(flow, flow.start(), params, steps, in_time=level).final.square().sum()

    amplitude = torch.tensor(1.5, requires_grad=True)
    (slope,) = torch.autograd.grad(final(amplitude), amplitude)
    assert float(slope) == pytest.approx(2.0 * float(final(amplitude.detach())) / 1.5, rel=1e-10)
    with pytest.raises(InputError, match="by `in_time`"):
        march(flow, flow.start(), params, steps, {"boundary": {"left": torch.ones(3)}})
    with pytest.raises(InputError, match=r"begin with the shape \(3, 3\)"):
        march(flow, flow.start(), params, steps, in_time=lambda t: {"boundary": {"left": torch.tensor(1.0)}})
