"""J2 plasticity in a bar: closed forms of the stress and of its derivatives, through cycles, for three hardening laws."""

from __future__ import annotations

import pytest
import torch

from physics.constitutive.inelastic.hardening import Hardening, LinearHardening, Swift, Voce
from physics.constitutive.inelastic.j2 import J2Plasticity
from physics.constitutive.inelastic.law import update
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march
from physics.soil.sensitivity import sensitive_march

BAR = Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL))
STEEL = {
    "youngs_modulus": torch.tensor(200e9),
    "poissons_ratio": torch.tensor(0.3),
    "yield_stress": torch.tensor(250e6),
}
LAWS: list[tuple[Hardening, dict[str, float]]] = [
    (LinearHardening(), {"hardening_modulus": 2e9}),
    (Voce(), {"saturation_stress": 300e6, "saturation_rate": 12.0}),
    (Swift(), {"reference_strain": 0.01, "hardening_exponent": 0.2}),
]
by_law = pytest.mark.parametrize(("law", "extra"), LAWS, ids=[type(law).__name__ for law, _ in LAWS])


def bar(rows: list[float], increments: int = 1) -> IncrementSchedule:
    return IncrementSchedule.of(
        [ElementTest("bar", (LoadStage(BAR, torch.tensor([[e, 0.0] for e in rows]), increments),))]
    )


def test_bar_stress_and_derivatives() -> None:
    """sigma = (E sy + E k eps)/(E + k) ... = 54.54545455 for E 1000, sy 50, k 100, strain 0.1."""
    model = J2Plasticity(LinearHardening())
    names = ["yield_stress", "hardening_modulus", "youngs_modulus", "poissons_ratio"]
    theta = torch.tensor([50.0, 100.0, 1000.0, 0.3])

    def stress(theta: torch.Tensor) -> torch.Tensor:
        params = dict(zip(names, theta.unbind()))
        return march(model, params, model.initial_state(torch.zeros(1, 6)), bar([0.1])).states[-1, 0, 0]

    assert stress(theta).item() == pytest.approx(54.54545455, abs=1e-7)
    expected = [0.90909091, 0.04132231, 0.00495868, 0.0]
    assert torch.func.grad(stress)(theta).tolist() == pytest.approx(expected, abs=1e-7)
    forward = [torch.func.jvp(stress, (theta,), (e,))[1].item() for e in torch.eye(4)]
    assert forward == pytest.approx(expected, abs=1e-7)


@by_law
def test_bar_follows_the_hardening_law(law: Hardening, extra: dict[str, float]) -> None:
    model = J2Plasticity(law)
    params = {**STEEL, **{name: torch.tensor(value) for name, value in extra.items()}}
    result = march(model, params, model.initial_state(torch.zeros(1, 6)), bar([0.001, 0.05, 0.049, 0.1, 0.2]))
    state = result.states[-1]
    assert state[0, 0].item() == pytest.approx(law.flow_stress(state[:, 6], params).item(), rel=1e-12)
    assert state[0, 6].item() == pytest.approx(0.2 - state[0, 0].item() / 200e9, rel=1e-10)


@by_law
def test_update_is_idempotent_and_dissipative(law: Hardening, extra: dict[str, float]) -> None:
    model = J2Plasticity(law)
    params = {**STEEL, **{name: torch.tensor(value) for name, value in extra.items()}}
    strain = 0.02 * torch.randn(200, 6)
    before = model.initial_state(torch.zeros(200, 6))
    after = update(model, before, strain, params).u
    again = update(model, after, torch.zeros(200, 6), params).u
    assert ((again - after).abs() / (1 + after.abs())).max().item() <= 1e-12
    assert model.dissipation(after, strain, before, params).min().item() >= 0.0


@by_law
def test_gradient_through_load_unload_reload(law: Hardening, extra: dict[str, float]) -> None:
    """Both sweeps against central differences, for each parameter alone and for all together."""
    model = J2Plasticity(law)
    values = {**STEEL, **{name: torch.tensor(value) for name, value in extra.items()}}
    names = list(values)
    base = torch.stack([values[name] for name in names])
    schedule = bar([0.01, 0.005, -0.004, 0.02])

    def outcome(scale: torch.Tensor, forward: bool) -> torch.Tensor:
        params = dict(zip(names, (base * scale).unbind()))
        start = model.initial_state(torch.zeros(1, 6))
        runner = (
            sensitive_march(model, params, lambda _: start, schedule)
            if forward
            else march(model, params, start, schedule)
        )
        return runner.states[:, 0, 0].square().sum() / 1e16

    one = torch.ones(len(names))
    by_sweep = torch.func.jacrev(lambda s: outcome(s, True))(one)
    by_chain = torch.func.grad(lambda s: outcome(s, False))(one)
    step = 1e-5
    differences = torch.stack(
        [(outcome(one + step * e, True) - outcome(one - step * e, True)) / (2 * step) for e in torch.eye(len(names))]
    )
    assert torch.allclose(by_sweep, differences, rtol=1e-6, atol=1e-6 * differences.abs().max().item())
    assert torch.allclose(by_chain, by_sweep, rtol=1e-10, atol=1e-12)
