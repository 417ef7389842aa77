"""The return to the flow stress: right to rounding, and differentiable three times, under every transform."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from physics.constitutive.inelastic.hardening import Hardening, LinearHardening, Swift, Voce

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


@by_law
def test_growth_works_under_transforms(law: Hardening, values: dict[str, float]) -> None:
    given = params(values)
    sizes, plastic = torch.tensor([1.0, 3.0, 9.0]), torch.tensor([0.0, 0.001, 0.02])
    together = law.growth(sizes, plastic, STIFFNESS, given)
    assert torch.equal(vmap(lambda s, p: law.growth(s, p, STIFFNESS, given))(sizes, plastic), together)
    stiffness = torch.tensor([100.0, 240.0])
    rows = vmap(lambda k: law.growth(sizes, plastic, k, given))(stiffness)
    assert torch.allclose(rows[1], together, rtol=1e-14)

    def of_yield(y: Tensor) -> Tensor:
        return law.growth(sizes, plastic, STIFFNESS, {**given, "yield_stress": y})

    yielding = given["yield_stress"]
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
