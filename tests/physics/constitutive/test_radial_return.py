"""The closed-form history of J2 points: against the generic local problem, finite differences and uniaxial tension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilevel.report import BilevelError, InputError
from physics.constitutive.inelastic.j2 import J2Plasticity
from physics.constitutive.inelastic.law import update
from physics.constitutive.inelastic.point_history import PointConstants, point_history


def parameters(points: int | None = None) -> dict[str, Tensor]:
    values = {"youngs_modulus": 200e9, "poissons_ratio": 0.3, "yield_stress": 250e6, "hardening_modulus": 5e9}
    scale = torch.ones(()) if points is None else 1.0 + 0.2 * torch.rand(points)
    return {name: scale * value for name, value in values.items()}


def loading(steps: int, points: int) -> Tensor:
    """Increments that load, unload and load the other way."""
    generator = torch.Generator().manual_seed(0)
    return 1.5e-3 * torch.randn(steps, points, 6, generator=generator)


@pytest.fixture(autouse=True)
def double_precision() -> None:
    torch.set_default_dtype(torch.float64)


def test_history_is_that_of_the_generic_model() -> None:
    increments, params = loading(8, 20), parameters(20)
    found = point_history(increments, params)
    model = J2Plasticity()
    state = model.initial_state(torch.zeros(20, 6))
    for k in range(8):
        state = update(model, state, increments[k], params).u
        torch.testing.assert_close(found.stress[k], state[:, :6], rtol=1e-9, atol=1.0)
        torch.testing.assert_close(found.plastic_strain[k], state[:, 6], rtol=1e-9, atol=1e-15)
    assert 0.2 < float((found.plastic_strain.diff(dim=0) > 0).double().mean()) < 1.0  # some steps are elastic


def test_uniaxial_tension_hardens_as_the_tangent_modulus_says() -> None:
    params = parameters()
    young, modulus = params["youngs_modulus"], params["hardening_modulus"]
    poisson, yielding = params["poissons_ratio"], params["yield_stress"]
    plastic = 0.01
    stress = yielding + modulus * plastic
    elastic = stress / young
    lateral = -poisson * elastic - 0.5 * plastic
    zero = torch.zeros(())
    strain = torch.stack([elastic + plastic, lateral, lateral, zero, zero, zero])
    found = point_history((strain / 40).expand(40, 1, 6), params)  # proportional enough only at the end
    first = torch.stack([yielding / young, -poisson * yielding / young, -poisson * yielding / young, zero, zero, zero])
    exact = point_history(torch.stack([first, strain - first])[:, None], params)
    torch.testing.assert_close(exact.stress[-1, 0], torch.stack([stress, *[zero] * 5]), rtol=1e-12, atol=1e-3)
    assert abs(float(exact.plastic_strain[-1, 0]) - plastic) < 1e-12
    assert abs(float(found.stress[-1, 0, 0] / stress) - 1.0) < 0.05


def test_consistent_tangent_is_the_derivative_of_the_stress() -> None:
    constants = PointConstants.of(parameters())
    increments = loading(2, 30)
    stress, plastic, *_ = constants.step(torch.zeros(6, 30), torch.zeros(30), increments[0].T)
    step = constants.step(stress, plastic, increments[1].T.contiguous())
    tangent = constants.tangent(step)
    assert 0 < int((step.growth > 0).sum()) <= 30
    for j in range(6):
        change = torch.zeros(6, 1)
        change[j] = 1e-8
        ahead = constants.step(stress, plastic, increments[1].T + change).stress
        behind = constants.step(stress, plastic, increments[1].T - change).stress
        torch.testing.assert_close((ahead - behind) / 2e-8, tangent[:, j], rtol=1e-5, atol=2e5)


def test_adjoint_is_the_derivative_in_increments_and_parameters() -> None:
    # In units of GPa, so that finite differences of everything are of one size.
    params = {name: value / (1e9 if name != "poissons_ratio" else 1.0) for name, value in parameters(3).items()}
    leaves = [loading(5, 3).requires_grad_(), *(value.requires_grad_() for value in params.values())]

    def outcome(increments: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        found = point_history(increments, dict(zip(params, values, strict=True)))
        return found.stress, 1e2 * found.plastic_strain

    assert torch.autograd.gradcheck(outcome, leaves, eps=1e-7, atol=1e-5, rtol=1e-5)


def test_shared_parameters_collect_all_points() -> None:
    increments = loading(4, 5000)  # more than one group
    each = {name: value.expand(5000).clone().requires_grad_() for name, value in parameters().items()}
    shared = {name: value.requires_grad_() for name, value in parameters().items()}
    by_each = torch.autograd.grad(point_history(increments, each).stress.square().sum(), list(each.values()))
    by_shared = torch.autograd.grad(point_history(increments, shared).stress.square().sum(), list(shared.values()))
    for one, many in zip(by_shared, by_each, strict=True):
        torch.testing.assert_close(one, many.sum(), rtol=1e-10, atol=0.0)


def test_wrong_shapes_and_second_derivatives_are_refused() -> None:
    with pytest.raises(InputError, match="steps, points, 6"):
        point_history(torch.zeros(4, 6), parameters())
    increments = loading(2, 2).requires_grad_()
    outcome = point_history(increments, parameters()).stress.square().sum()
    with pytest.raises(BilevelError, match="differentiable once"):
        torch.autograd.grad(outcome, increments, create_graph=True)
