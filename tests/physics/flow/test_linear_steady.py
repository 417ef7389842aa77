"""The steady state of a linear system: that of the energy's minimum, with derivatives of any order and of many directions."""

from __future__ import annotations

from functools import cache

import torch

import bilevel
from physics.constitutive.flow.anisotropic import AnisotropicConduction
from physics.discretisation import rectangle
from physics.flow.darcy import Diffusion
from physics.flow.linear_steady import LinearSteady
from physics.flow.linear_system import LinearSystem

START = torch.tensor([2.0, 0.4, 0.8, 1.7, 0.9], dtype=torch.float64)


@cache
def prepared() -> tuple[Diffusion, LinearSystem, LinearSteady]:
    mesh = rectangle(4, 3, (2.0, 1.0), order=2)
    law = AnisotropicConduction("conductivity", "", 2, 0.4)
    wells = mesh.locate([[0.7, 0.4]])
    flow = Diffusion(mesh, [mesh.fixed("left")], law=law, leaky=True, exchange=["right"], wells=wells)
    system = LinearSystem(flow)
    return flow, system, LinearSteady(system.places[0], flow.constraints.matrix)


def params(x: torch.Tensor) -> dict[str, object]:
    """Of five numbers."""
    return {
        "flow": {"conductivity": x[0], "anisotropy": x[1]},
        "exchange_right": {"coefficient": x[2], "level": torch.tensor(0.3)},
        "leakage": {"resistance": x[3], "head": torch.tensor(0.1)},
        "wells": torch.tensor([-0.3]),
        "boundary": {"left": x[4]},
    }


def field(x: torch.Tensor) -> torch.Tensor:
    flow, system, steady = prepared()
    given = params(x)
    return steady(system.stiffness(given), system.load(given), flow.expand(flow.start(), given)[:, 0])


def test_it_is_the_minimum_of_the_energy() -> None:
    flow, *_ = prepared()
    expected = flow.expand(bilevel.argmin(flow, flow.start(), params(START)).u, params(START))[:, 0]
    torch.testing.assert_close(field(START), expected, rtol=1e-10, atol=1e-12)


def test_derivatives_of_all_kinds() -> None:
    x = START.clone().requires_grad_()
    assert torch.autograd.gradcheck(field, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: field(x)[::5], (x,))
    torch.testing.assert_close(torch.func.jacfwd(field)(START), torch.func.jacrev(field)(START))


def test_products_with_the_jacobian_make_no_new_factor() -> None:
    """J v as the derivative of J^T w in w, of many directions at once, as large fields take it."""
    _, _, steady = prepared()
    x = START.clone().requires_grad_()
    found = field(x)
    made = steady._latest
    w = torch.zeros_like(found, requires_grad=True)
    (gradient,) = torch.autograd.grad(found, x, w, create_graph=True)
    rows = torch.autograd.grad(gradient, w, torch.eye(len(x)), is_grads_batched=True, retain_graph=True)[0]
    torch.testing.assert_close(rows.mT, torch.func.jacfwd(field)(START))
    columns = torch.autograd.grad(found, x, torch.eye(len(found)), is_grads_batched=True)[0]
    torch.testing.assert_close(columns, rows.mT)
    assert steady._latest is made
