"""The return to the flow stress: right to rounding, and differentiable three times, under every transform."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, lists
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from physics.constitutive.inelastic.hardening import Hardening, LinearHardening, Swift, Voce
from physics.constitutive.inelastic.hardening_sum import HardeningSum

LAWS: list[tuple[Hardening, dict[str, float]]] = [
    (LinearHardening(), {"yield_stress": 2.0, "hardening_modulus": 3.0}),
    (Voce(), {"yield_stress": 2.0, "saturation_stress": 1.5, "saturation_rate": 12.0}),
    (Swift(), {"yield_stress": 2.0, "reference_strain": 0.01, "hardening_exponent": 0.2}),
]
by_law = pytest.mark.parametrize(("law", "values"), LAWS, ids=[type(law).__name__ for law, _ in LAWS])
STIFFNESS = torch.tensor(240.0)


def params(values: dict[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


@by_law
def test_growth_solves_its_equation_to_rounding(law: Hardening, values: dict[str, float]) -> None:
    size = torch.tensor([0.0, 1.9, 2.0001, 3.0, 50.0, 5e3])
    old = torch.tensor([0.0, 0.0, 0.0, 0.002, 0.0, 0.1])
    found = law.growth(size, old, STIFFNESS, params(values))
    yields = size > law.flow_stress(old, params(values))
    missed = size - STIFFNESS * found - law.flow_stress(old + found, params(values))
    assert (found[~yields] == 0.0).all()
    assert (missed[yields].abs() <= 1e-14 * size[yields]).all()


@by_law
def test_growth_has_three_exact_derivatives(law: Hardening, values: dict[str, float]) -> None:
    """Of each entry in turn, against differences of the derivative of one order less."""
    base = torch.tensor([4.0, 0.003, 240.0, *values.values()])

    def growth(x: Tensor) -> Tensor:
        return law.growth(x[0], x[1], x[2], dict(zip(values, x[3:])))

    first, second = grad(growth), jacrev(grad(growth))
    third = jacfwd(second)
    for lower, higher in ((growth, first), (first, second), (second, third)):
        exact = higher(base)
        for k in range(len(base)):
            h = 1e-4 * float(base[k])
            step = torch.zeros_like(base)
            step[k] = h
            near = (lower(base + step) - lower(base - step)) / (2 * h)
            far = (lower(base + 2 * step) - lower(base - 2 * step)) / (4 * h)
            difference = (4 * near - far) / 3
            scale = float(exact[..., k].abs().max()) + float(lower(base).abs().max()) / float(base[k])
            assert (exact[..., k] - difference).abs().max() < 1e-6 * scale


SUM = HardeningSum([Voce(), Swift()])
SUM_VALUES = {"yield_stress": 2.0, "saturation_stress_1": 1.5, "saturation_rate_1": 12.0}
SUM_VALUES |= {"reference_strain_2": 0.01, "hardening_exponent_2": 0.2}


@pytest.mark.parametrize(("law", "values"), [*LAWS, (SUM, SUM_VALUES)], ids=lambda x: type(x).__name__)
@settings(max_examples=20, deadline=None)
@given(strain=floats(0.0, 2.0), scales=lists(floats(0.5, 2.0), min_size=5, max_size=5))
def test_slopes_in_closed_form_are_derivatives(
    law: Hardening, values: dict[str, float], strain: float, scales: list[float]
) -> None:
    """With their own derivatives in strain and parameters, against those by automatic differentiation."""
    names = list(values)
    x = torch.tensor([strain, *(v * scale for v, scale in zip(values.values(), scales))])

    def closed(x: Tensor) -> Tensor:
        return law.slope(x[0], dict(zip(names, x[1:]))) + torch.zeros(())

    def automatic(x: Tensor) -> Tensor:
        return Hardening.slope(law, x[0], dict(zip(names, x[1:])))

    for one, other in ((closed, automatic), (grad(closed), grad(automatic))):
        torch.testing.assert_close(one(x), other(x), rtol=1e-12, atol=1e-12)


@by_law
def test_growth_works_under_transforms(law: Hardening, values: dict[str, float]) -> None:
    known = params(values)
    sizes, plastic = torch.tensor([1.0, 3.0, 9.0]), torch.tensor([0.0, 0.001, 0.02])
    together = law.growth(sizes, plastic, STIFFNESS, known)
    assert torch.equal(vmap(lambda s, p: law.growth(s, p, STIFFNESS, known))(sizes, plastic), together)
    stiffness = torch.tensor([100.0, 240.0])
    rows = vmap(lambda k: law.growth(sizes, plastic, k, known))(stiffness)
    assert torch.allclose(rows[1], together, rtol=1e-14)

    def of_yield(y: Tensor) -> Tensor:
        return law.growth(sizes, plastic, STIFFNESS, {**known, "yield_stress": y})

    yielding = known["yield_stress"]
    _, forward = jvp(of_yield, (yielding,), (torch.ones(()),))
    assert torch.allclose(forward, jacrev(of_yield)(yielding), rtol=1e-12)
    many = vmap(jacfwd(of_yield))(torch.stack([yielding, 1.1 * yielding]))
    assert torch.allclose(many[0], forward, rtol=1e-12)


@by_law
def test_what_does_not_yield_has_finite_zero_derivatives(law: Hardening, values: dict[str, float]) -> None:
    leaves = [torch.tensor(v, requires_grad=True) for v in values.values()]
    size = torch.zeros(3, requires_grad=True)
    law.growth(size, torch.zeros(3), STIFFNESS, dict(zip(values, leaves))).sum().backward()
    assert all(float(leaf.grad.abs().sum()) == 0.0 for leaf in [size, *leaves])  # type: ignore[union-attr]
