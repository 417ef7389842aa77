"""Nonlinear diffusion in residual form: against the Kirchhoff transform, the plain reference, and differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.report import BilevelError
from physics.constitutive.flow import QuadraticConductivity
from physics.discretisation import Mesh, box, rectangle
from physics.flow.nonlinear_diffusion import NonlinearDiffusion
from physics.flow.time_stepping import BACKWARD_EULER, march
from physics.flow.time_steps import TimeSteps
from physics.local.energy import LocalEnergy
from physics.local.term import Term


@pytest.fixture(autouse=True)
def double_precision() -> None:
    torch.set_default_dtype(torch.float64)


def flow_on(mesh: Mesh, transient: bool = False) -> NonlinearDiffusion:
    held = [mesh.fixed("left", value=1.0), mesh.fixed("right")]
    return NonlinearDiffusion(mesh, QuadraticConductivity(), held, transient=transient)


def parameters(mesh: Mesh, spread: float = 1.0) -> dict[str, Any]:
    log_k = spread * torch.randn(len(mesh.cells), generator=torch.Generator().manual_seed(0))
    return {"flow": {"conductivity": log_k.exp()}, "source": torch.tensor(1.0)}


def kirchhoff(theta: Tensor) -> Tensor:
    """u with u + u^3/3 = theta, by Cardano's formula for one real root."""
    root = torch.sqrt(1.0 + 2.25 * theta**2)
    return (root + 1.5 * theta) ** (1 / 3) - (root - 1.5 * theta).clamp_min(0.0) ** (1 / 3)


def test_the_transform_of_kirchhoff_is_linear_between_two_sides() -> None:
    mesh = rectangle(8, 2)
    flow = flow_on(mesh)
    u = flow.expand(bilevel.root(flow, flow.start(), {"flow": {"conductivity": torch.tensor(3.0)}}).u)[:, 0]
    exact = kirchhoff(4.0 / 3.0 * (1.0 - mesh.coordinates[:, 0]))
    # The quadrature integrates the flux of each cell exactly, so the values at the nodes are exact.
    torch.testing.assert_close(u, exact, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("mesh", [rectangle(5, 4), box(3, 3, 2)], ids=["quadrilaterals", "bricks"])
def test_tangent_is_the_derivative_and_not_symmetric(mesh: Mesh) -> None:
    flow, params = flow_on(mesh), parameters(mesh)
    u = torch.rand(flow.n, generator=torch.Generator().manual_seed(1))
    tangent = torch.from_numpy(flow.tangent(u, params).csr().toarray())
    jacobian = torch.func.jacrev(lambda v: flow.residual(v, params))(u)
    torch.testing.assert_close(tangent, jacobian, rtol=1e-12, atol=1e-12)
    assert float((tangent - tangent.T).abs().max()) > 1e-3


@pytest.mark.parametrize("n", [6, 40], ids=["dense", "sparse"])
def test_gradient_is_that_of_differences_and_certified(n: int) -> None:
    mesh = rectangle(n, n)
    flow, given = flow_on(mesh), parameters(mesh)
    log_k = given["flow"]["conductivity"].log().requires_grad_()
    solver = bilevel.Newton(tolerance=bilevel.Tolerance(1e-12))

    def misfit(log_k: Tensor) -> tuple[Tensor, bilevel.Solution]:
        params = {"flow": {"conductivity": log_k.exp()}, "source": given["source"]}
        solution = bilevel.root(flow, flow.start(), params, solver=solver)
        return (solution.u - 0.5).square().sum(), solution

    value, solution = misfit(log_k)
    (gradient,) = torch.autograd.grad(value, log_k)
    assert solution.gradient is not None
    assert solution.gradient.relative_error < 1e-8
    direction = torch.randn(len(log_k), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        slope = (misfit(log_k + 1e-5 * direction)[0] - misfit(log_k - 1e-5 * direction)[0]) / 2e-5
    torch.testing.assert_close(gradient @ direction, slope, rtol=1e-6, atol=0.0)


def test_time_steps_end_in_the_steady_state_and_are_differentiable() -> None:
    mesh = rectangle(6, 3)
    flow, params = flow_on(mesh, transient=True), parameters(mesh, spread=0.3)
    steady = bilevel.root(flow, flow.start(), params).u
    capacity = torch.tensor(0.2, requires_grad=True)

    def final(capacity: Tensor, end: float) -> Tensor:
        steps = TimeSteps(torch.linspace(0.0, end, 9).numpy())
        stored = {**params, "storage": {"capacity": capacity}}
        return march(flow, flow.start(), stored, steps, scheme=BACKWARD_EULER).final

    torch.testing.assert_close(final(capacity.detach(), 1e6), steady, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(final(capacity, 0.05).sum(), capacity)
    with torch.no_grad():
        expected = (final(capacity + 1e-5, 0.05).sum() - final(capacity - 1e-5, 0.05).sum()) / 2e-5
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=0.0)
    assert float(slope) < -1e-2


def test_a_flux_has_no_energy() -> None:
    mesh = rectangle(2, 2)
    operator = mesh.operator(value=True)
    flow = flow_on(mesh)
    law = QuadraticConductivity()
    measure = flow._assembly.terms[0].measure
    energy = LocalEnergy([Term("flow", operator, law, measure)], 9, constraints=[mesh.fixed("left")])
    with pytest.raises(BilevelError, match="derives from no energy"):
        energy.value(energy.start(), {"flow": {"conductivity": torch.tensor(1.0)}})
