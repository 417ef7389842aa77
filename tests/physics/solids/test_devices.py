"""Problems on another device: nothing is forgotten on the host, and the answers are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pretended_device import numbers, pretended_device
from torch import Tensor

import bilevel
from bilevel.linalg.multigrid import amg
from bilevel.linalg.multigrid.amg import AMGFactor
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.flow.power_law import PowerLaw
from physics.constitutive.inelastic.j2 import J2Plasticity
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import box, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.flow import DarcyFlow
from physics.flow.network import FlowNetwork
from physics.solids.loads import Traction
from physics.solids.solid import Solid

Case = Callable[[torch.device], tuple[Tensor, Tensor]]
"""The solution and a gradient, computed on a device."""


def varied(count: int, device: torch.device) -> Tensor:
    values = 0.5 + torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return values.to(device).requires_grad_()


def stretched(device: torch.device) -> tuple[Tensor, Tensor]:
    mesh = box(3, 2, 1)
    supports = [mesh.fixed("left"), mesh.fixed("right", value=torch.tensor([0.2, 0.0, 0.0], dtype=torch.float64))]
    solid, young = Solid(mesh, NeoHookean(), constraints=supports).to(device), varied(len(mesh.cells), device)
    u = solid.solve({"material": {"youngs_modulus": young, "poissons_ratio": 0.3}}).u
    return u, torch.autograd.grad(u.square().sum(), young)[0]


def pulled(device: torch.device) -> tuple[Tensor, Tensor]:
    mesh = rectangle(3, 2, order=2)
    loads = [Traction("pull", "right")]
    solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], loads).to(device)
    load = torch.tensor([0.1, 0.0], dtype=torch.float64).to(device).requires_grad_()
    u = solid.solve({"material": {"mu": 1.0, "lame_lambda": 4.0}, "pull": load}).u
    return u, torch.autograd.grad(u.square().sum(), load)[0]


def yielding(device: torch.device) -> tuple[Tensor, Tensor]:
    mesh = rectangle(3, 2)
    supports = [mesh.fixed("left"), mesh.fixed("right", value=torch.tensor([0.01, 0.0], dtype=torch.float64))]
    solid = Solid(mesh, J2Plasticity(), Kinematics.PLANE_STRAIN, supports).to(device)
    young = torch.tensor(200.0, dtype=torch.float64).to(device).requires_grad_()
    law = {"youngs_modulus": young, "poissons_ratio": 0.3, "yield_stress": 0.25, "hardening_modulus": 5.0}
    u = solid.solve({"begin": solid.begin(), "material": law}).u
    return u, torch.autograd.grad(u.square().sum(), young)[0]


def seeping(device: torch.device) -> tuple[Tensor, Tensor]:
    mesh = rectangle(10, 10)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")]).to(device)
    conductivity = varied(len(mesh.cells), device)
    u = bilevel.argmin(flow, flow.start(), {"flow": {"hydraulic_conductivity": conductivity}}).u
    return u, torch.autograd.grad(u.square().sum(), conductivity)[0]


def piped(device: torch.device) -> tuple[Tensor, Tensor]:
    edges = torch.tensor([[i, i + 1] for i in range(9)] + [[i, i + 2] for i in range(8)])
    heads = Dirichlet("heads", torch.tensor([0, 9]), value=torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    network = FlowNetwork(Graph(10, edges), PowerLaw(3.0), [heads]).to(device)
    conductance = varied(len(edges), device)
    u = bilevel.argmin(network, network.start(), {"flow": {"conductance": conductance}}).u
    return u, torch.autograd.grad(u.square().sum(), conductance)[0]


def batched(device: torch.device) -> tuple[Tensor, Tensor]:
    p = varied(50, device)
    energy = bilevel.Energy(lambda u, p: ((u - p[..., None]).square() + u**4).sum(-1), batch_dims=1)
    u = bilevel.argmin(energy, torch.zeros(50, 3, dtype=torch.float64, device=device), p).u
    return u, torch.autograd.grad(u.square().sum(), p)[0]


def both(case: Case) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    here = case(torch.device("cpu"))
    with pretended_device() as device:
        there = case(device)
    assert all(found.device == device for found in there)
    return here, (numbers(there[0].detach()), numbers(there[1]))


@pytest.mark.parametrize("case", [stretched, pulled, yielding, seeping, piped, batched])
def test_solution_and_gradient_on_another_device_are_those_of_the_cpu(case: Case) -> None:
    here, there = both(case)
    torch.testing.assert_close(there[0], here[0], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(there[1], here[1], rtol=1e-6, atol=1e-8)


def test_a_tensor_forgotten_on_the_host_is_noticed() -> None:
    with pretended_device() as device, pytest.raises(RuntimeError, match="on the CPU among those on"):
        torch.zeros(3, device=device) + torch.zeros(3)


def test_multigrid_is_picked_elsewhere_for_large_symmetric_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amg, "FROM_ELSEWHERE", 20)
    made: list[int] = []
    original = AMGFactor.refine_rows

    def counting(self: AMGFactor, *args: object, **options: object) -> object:
        made.append(self.A.n)
        return original(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(AMGFactor, "refine_rows", counting)
    with pretended_device() as device:
        stretched(device)
    assert made
