"""Residuals of inelastic laws with their derivatives: closed forms against automatic differentiation and differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers
from torch import Tensor

from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.inelastic.intergranular import HypoplasticIntergranular
from physics.constitutive.inelastic.linearised import AutomaticallyLinearised

SAND = {
    "friction_angle": 0.57,
    "granular_hardness": 1e9,
    "hardness_exponent": 0.25,
    "void_ratio_min": 0.55,
    "void_ratio_critical": 0.95,
    "void_ratio_max": 1.2,
    "pyknotropy": 0.2,
    "barotropy": 1.4,
}
SMALL_STRAIN = {
    "intergranular_radius": 1e-4,
    "transverse_stiffness": 2.0,
    "reversal_stiffness": 5.0,
    "intergranular_growth": 0.2,
    "intergranular_exponent": 6.0,
}
LAWS = [(Hypoplastic(), SAND), (HypoplasticIntergranular(), SAND | SMALL_STRAIN)]


def samples(law: Hypoplastic, seed: int, shear: float, pressure: float, size: float) -> list[Tensor]:
    """New states, increments and old states (4, ...): stresses about isotropic ones, dense and loose sand."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    stress = -pressure * (torch.tensor([1.0, 1, 1, 0, 0, 0]) + shear * draw(4, 6).clamp(-1, 1))
    void_ratio = 0.5 + 0.7 * torch.rand(4, 1, generator=generator)
    old = torch.cat([stress, void_ratio, 1e-5 * draw(4, law.size - 7)], 1)
    return [old * (1.0 + 0.01 * shear * draw(4, law.size)), size * draw(4, 6), old]


@settings(max_examples=15, deadline=None)
@given(
    seed=integers(0, 10_000),
    shear=floats(0.0, 0.4),
    pressure=floats(1e3, 1e7),
    size=floats(1e-8, 1e-2),
    friction=floats(0.35, 0.75),
    exponent=floats(0.1, 0.9),
)
def test_slopes_are_those_of_automatic_differentiation(seed, shear, pressure, size, friction, exponent):
    law = Hypoplastic()
    values = {"another_parameter": torch.tensor(3.0)} | {name: torch.tensor(x) for name, x in SAND.items()}
    values |= {"friction_angle": torch.tensor(friction), "hardness_exponent": torch.tensor(exponent)}
    state, increment, old = samples(law, seed, shear, pressure, size)
    found = law.linearised(state, increment, old, values)
    automatic = AutomaticallyLinearised(law.residual, state, increment, old, values)
    torch.testing.assert_close(found.residual, automatic.residual, rtol=1e-12, atol=1e-15)
    slopes = found.slopes()
    for one, other in zip(slopes, automatic.slopes(), strict=True):
        scale = other.abs().amax((-3, -2), keepdim=True)
        assert bool(((one - other).abs() <= 1e-10 * scale).all())
    assert all(torch.equal(one, other) for one, other in zip(found.by_new(), slopes[:2]))
    assert not slopes.by_values[..., 0].any()


@pytest.mark.parametrize(("law", "numbers"), LAWS, ids=[type(law).__name__ for law, _ in LAWS])
def test_slopes_are_limits_of_differences(law, numbers):
    """Second order of the remainder, along one direction in everything at once."""
    values = {name: torch.tensor(x) for name, x in numbers.items()}
    inputs = samples(law, 3, 0.3, 1e5, 1e-3)
    directions = [x * d for x, d in zip(inputs, samples(law, 4, 0.3, 1.0, 0.5))]
    growth = torch.linspace(0.5, 1.0, len(values))
    slopes = law.linearised(*inputs, values).slopes()
    moved = sum((by @ d.unsqueeze(-1)).squeeze(-1) for by, d in zip(slopes[:3], directions))
    moved = moved + slopes.by_values @ (growth * torch.stack(list(values.values())))

    def remainder(h: float) -> float:
        there = {name: value * (1.0 + h * g) for (name, value), g in zip(values.items(), growth)}
        at = law.residual(*(x + h * d for x, d in zip(inputs, directions)), there)
        return float((at - law.residual(*inputs, values) - h * moved).norm())

    first, second = remainder(1e-3), remainder(5e-4)
    assert first > 0.0
    assert first / second == pytest.approx(4.0, abs=0.1)


def test_values_of_every_sample_and_a_tangent():
    """One parameter a sample, and the consistent tangent that bodies use, against automatic differentiation."""
    law = Hypoplastic()
    state, increment, old = samples(law, 5, 0.2, 1e5, 1e-4)
    values = {name: torch.tensor(x) * torch.linspace(0.98, 1.02, 4) for name, x in SAND.items()}
    automatic = AutomaticallyLinearised(law.residual, state, increment, old, values)
    for one, other in zip(law.linearised(state, increment, old, values).slopes(), automatic.slopes(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))
    by_state, by_increment = AutomaticallyLinearised(law.residual, state, increment, old, values).by_new()
    expected = -torch.linalg.solve(by_state, by_increment)[:, :6]
    torch.testing.assert_close(law.consistent_tangent(state, increment, old, values), expected, rtol=1e-9, atol=1.0)


def test_a_state_in_tension_is_not_a_number_and_warns_of_nothing():
    law = Hypoplastic()
    state, increment, old = samples(law, 6, 0.2, 1e5, 1e-4)
    state[1, :6] = 3e5
    found = law.linearised(state, increment, old, {name: torch.tensor(x) for name, x in SAND.items()})
    assert found.residual.isfinite().all(-1).tolist() == [True, False, True, True]
