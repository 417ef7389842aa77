"""Intergranular strain: its limits are elastic reversal stiffness and plain hypoplasticity; its gradients are exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.inelastic.intergranular import HypoplasticIntergranular
from physics.constitutive.inelastic.law import update
from physics.constitutive.mandel import axisymmetric

SAND = {
    "friction_angle": 0.576, "granular_hardness": 1e9, "hardness_exponent": 0.25, "void_ratio_min": 0.55,
    "void_ratio_critical": 0.95, "void_ratio_max": 1.05, "pyknotropy": 0.25, "barotropy": 1.5,
    "intergranular_radius": 1e-4, "transverse_stiffness": 2.0, "reversal_stiffness": 5.0,
    "intergranular_growth": 0.5, "intergranular_exponent": 6.0,
}  # fmt: skip
PARAMS = {name: torch.tensor(value) for name, value in SAND.items()}
MODEL, PLAIN = HypoplasticIntergranular(), Hypoplastic()
STRESS = axisymmetric(torch.tensor([-1.2e5]), torch.tensor([-1e5]))
VOID_RATIO = torch.tensor([0.7])
DIRECTION = axisymmetric(torch.tensor([-1.0]), torch.tensor([0.3]))


def state(intergranular: Tensor) -> Tensor:
    return torch.cat([MODEL.initial_state(STRESS, void_ratio=VOID_RATIO)[:, :7], intergranular], 1)


def stiffness(start: Tensor, step: Tensor) -> Tensor:
    return (update(MODEL, start, step, PARAMS).u - start)[:, :6] / 1e-9


def test_first_strain_meets_the_reversal_stiffness() -> None:
    linear = PLAIN.rate(STRESS, VOID_RATIO, DIRECTION, PARAMS).linear
    found = stiffness(MODEL.initial_state(STRESS, void_ratio=VOID_RATIO), 1e-9 * DIRECTION)
    assert torch.allclose(found, 5.0 * linear, rtol=1e-3)


def test_saturated_intergranular_strain_is_plain_hypoplasticity_and_its_reversal_is_stiff() -> None:
    unit = DIRECTION / DIRECTION.norm()
    saturated = state(1e-4 * unit)
    rate = PLAIN.rate(STRESS, VOID_RATIO, DIRECTION, PARAMS)
    assert torch.allclose(
        stiffness(saturated, 1e-9 * DIRECTION), rate.linear + rate.nonlinear * DIRECTION.norm(), rtol=1e-3
    )
    assert torch.allclose(stiffness(saturated, -1e-9 * DIRECTION), -5.0 * rate.linear, rtol=1e-3)


def test_intergranular_strain_saturates_at_its_radius() -> None:
    current = MODEL.initial_state(STRESS, void_ratio=VOID_RATIO)
    for _ in range(40):
        current = update(MODEL, current, 4e-5 * DIRECTION, PARAMS).u
    assert current[0, 7:].norm().item() == pytest.approx(1e-4, rel=0.01)


def test_tangent_against_differences() -> None:
    start = state(torch.tensor([[-3e-5, 1e-5, 2e-5, 1e-5, 0.0, -1e-5]]))
    increment = 2e-5 * torch.tensor([[-1.0, 0.3, 0.35, 0.2, -0.1, 0.3]])
    tangent = MODEL.consistent_tangent(update(MODEL, start, increment, PARAMS).u, increment, start, PARAMS)[0]
    steps = 1e-9 * torch.eye(6)
    shifted = update(MODEL, start.expand(12, -1), torch.cat([increment + steps, increment - steps]), PARAMS).u[:, :6]
    differences = ((shifted[:6] - shifted[6:]) / 2e-9).T
    assert (tangent - differences).abs().max().item() <= 1e-6 * tangent.abs().max().item()


def test_reversal_stiffness_below_transverse_is_refused() -> None:
    with pytest.raises(InputError, match=r"reversal_stiffness = 1\.5 .*above transverse_stiffness = 2"):
        MODEL.check({**PARAMS, "reversal_stiffness": torch.tensor(1.5)})
