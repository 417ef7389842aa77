"""The march of a linear system: the same as the chain of minimisations, with the derivatives of finite differences."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from physics.constitutive.flow.anisotropic import AnisotropicConduction
from physics.discretisation import rectangle
from physics.flow.darcy import Diffusion
from physics.flow.linear_march import LinearMarch
from physics.flow.linear_system import LinearSystem
from physics.flow.time_stepping import SDIRK2, march
from physics.flow.time_steps import TimeSteps

STEPS = TimeSteps(np.array([0.0, 0.1, 0.2, 0.35, 0.5]))


@cache
def flow() -> Diffusion:
    mesh = rectangle(4, 3, (2.0, 1.0), order=2)
    law = AnisotropicConduction("conductivity", "", 2, 0.4)
    wells = mesh.locate([[0.7, 0.4]])
    options = {"leaky": True, "transient": True, "inflow": ["top"], "exchange": ["right"], "wells": wells}
    return Diffusion(mesh, [mesh.fixed("left")], law=law, **options)


@cache
def prepared() -> tuple[LinearSystem, LinearMarch]:
    system = LinearSystem(flow())
    return system, LinearMarch(*system.places, flow().constraints.matrix, STEPS)


def params(x: torch.Tensor) -> dict[str, object]:
    """Of five numbers."""
    return {
        "flow": {"conductivity": x[0], "anisotropy": x[1]},
        "storage": {"capacity": x[2]},
        "exchange_right": {"coefficient": x[3], "level": torch.tensor(0.3)},
        "leakage": {"resistance": x[4], "head": torch.tensor(0.1)},
        "inflow_top": torch.tensor(0.2),
        "source": torch.tensor(0.5),
        "wells": torch.tensor([-0.3]),
    }


def level(times: torch.Tensor) -> torch.Tensor:
    return 1.0 + torch.sin(7.0 * times)


START = torch.tensor([2.0, 0.4, 1.3, 0.8, 1.7], dtype=torch.float64)


def fast(x: torch.Tensor) -> torch.Tensor:
    """All fields at the ends of all stages."""
    problem, (system, march) = flow(), prepared()
    given = params(x)
    times = torch.from_numpy(STEPS.stage_times(SDIRK2.nodes))
    shape = problem.constraints.expand(problem.start(), {"left": 1.0})[:, 0]
    held = level(times).unsqueeze(-1) * shape
    load = system.load(given).expand(len(times), 2, -1)
    return march(system.stiffness(given), system.capacity(given), load, held, problem.start()).heads


def test_it_is_the_chain_of_minimisations() -> None:
    problem = flow()
    found = march(
        problem,
        problem.start(),
        params(START),
        STEPS,
        in_time=lambda times: {"boundary": {"left": level(times)}},
    )
    expected = torch.stack([problem.constraints.extend(u)[:, 0] for u in found.observed])
    ends = fast(START)[:, -1]
    free = problem.constraints.free
    torch.testing.assert_close(ends[:, free], expected[:, free], rtol=1e-7, atol=1e-8)


def test_derivatives_either_way_are_those_of_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(6, fast(START).numel(), generator=generator, dtype=torch.float64)

    def observed(x: torch.Tensor) -> torch.Tensor:
        return weights @ fast(x).reshape(-1)

    eye, h = torch.eye(len(START), dtype=torch.float64), 1e-5
    differences = torch.stack([(observed(START + h * e) - observed(START - h * e)) / (2 * h) for e in eye], 1)
    forward = torch.func.jacfwd(observed)(START)
    x = START.clone().requires_grad_()
    (backward,) = torch.autograd.grad(observed(x), x, torch.eye(6, dtype=torch.float64), is_grads_batched=True)
    torch.testing.assert_close(forward, differences, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(backward, forward, rtol=1e-10, atol=1e-11)


def test_second_derivatives_of_all_kinds_agree_with_differences_of_gradients() -> None:
    weights = torch.randn(fast(START).shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def objective(x: torch.Tensor) -> torch.Tensor:
        return (weights * fast(x).square()).sum()

    def gradient(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(objective(x), x)[0]

    eye, h = torch.eye(len(START), dtype=torch.float64), 1e-5
    differences = torch.stack([(gradient(START + h * e) - gradient(START - h * e)) / (2 * h) for e in eye], 1)
    for hessian in (
        torch.func.hessian(objective)(START),
        torch.func.jacrev(torch.func.jacrev(objective))(START),
        torch.func.jacrev(torch.func.jacfwd(objective))(START),
        torch.autograd.functional.hessian(objective, START),
    ):
        torch.testing.assert_close(hessian, differences, rtol=1e-6, atol=1e-6)


def test_several_sets_of_parameters_at_once() -> None:
    points = torch.stack([START, 1.1 * START])
    torch.testing.assert_close(torch.vmap(fast)(points), torch.stack([fast(x) for x in points]), rtol=1e-13, atol=1e-13)
