"""Modified Cam-Clay against its closed forms, undrained and drained, and along an unload-reload loop."""

from __future__ import annotations

import math

import pytest
import torch

from bilevel.report import ConvergenceError, InputError
from physics.constitutive.inelastic.cam_clay import (
    CamClayConstantPoissonsRatio,
    CamClayConstantShearModulus,
    ModifiedCamClay,
)
from physics.constitutive.mandel import axisymmetric, equivalent_stress, mean_pressure
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, March, march

M, LAMBDA, KAPPA, P0 = 1.2, 0.077, 0.0066, 200e3
CLAY = {
    "compression_index": torch.tensor(LAMBDA),
    "swelling_index": torch.tensor(KAPPA),
    "critical_ratio": torch.tensor(M),
    "poissons_ratio": torch.tensor(0.3),
    "shear_modulus": torch.tensor(10e6),
}
START = axisymmetric(torch.tensor([-P0]), torch.tensor([-P0]))


def run(
    model: ModifiedCamClay, *stages: LoadStage, void_ratio: float = 0.788, params: dict[str, torch.Tensor] = CLAY
) -> March:
    state = model.initial_state(START, void_ratio=torch.tensor([void_ratio]), preconsolidation=torch.tensor([P0]))
    return march(model, params, state, IncrementSchedule.of([ElementTest("clay", stages)]))


@pytest.mark.parametrize("model", [CamClayConstantShearModulus(), CamClayConstantPoissonsRatio()], ids=["G", "nu"])
def test_undrained_critical_state(model: ModifiedCamClay) -> None:
    """p' = p0 2^-(1 - kappa/lambda) and q = M p' (Wood 1990, section 7.2)."""
    undrained = LoadStage(
        Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_VOLUMETRIC)), torch.tensor([[-0.15, 0.0]]), 40
    )
    stress = run(model, undrained).states[-1, :, :6]
    assert mean_pressure(stress).item() == pytest.approx(P0 * 2 ** (KAPPA / LAMBDA - 1), rel=1e-4)
    assert mean_pressure(stress).item() == pytest.approx(106.1e3, rel=2e-3)
    assert equivalent_stress(stress).item() == pytest.approx(127.3e3, rel=2e-3)


def test_drained_triaxial_at_constant_specific_volume() -> None:
    model = CamClayConstantPoissonsRatio(specific_volume=1.788)
    control = Control((Quantity.STRESS_AXIAL, Quantity.STRESS_RADIAL))
    result = run(model, LoadStage(control, torch.tensor([[-587.387e3, -200e3]]), 200))
    state = result.states[-1]
    p, q, pc = mean_pressure(state[:, :6]), equivalent_stress(state[:, :6]), state[:, 6]
    assert pc.item() == pytest.approx(645.77e3, rel=1e-3)
    assert pc.item() == pytest.approx((p + q**2 / (M**2 * p)).item(), rel=1e-6)
    assert -result.strains[-1, 0, 0].item() == pytest.approx(0.1898, rel=5e-3)


def test_isotropic_compression_follows_both_lines() -> None:
    """Doubling p costs lambda ln 2 of void ratio, releasing it gives kappa ln 2 back (the void ratio changes with the strain)."""
    control = Control((Quantity.PRESSURE, Quantity.DEVIATOR))
    result = run(
        CamClayConstantShearModulus(),
        LoadStage(control, torch.tensor([[2 * P0, 0.0]]), 40),
        LoadStage(control, torch.tensor([[P0, 0.0]]), 10),
    )
    e = result.at_rows(0)[0][:, 7]
    assert (e[0] - e[1]).item() == pytest.approx(LAMBDA * math.log(2), rel=1e-4)
    assert (e[2] - e[1]).item() == pytest.approx(KAPPA * math.log(2), rel=1e-4)


def test_elastic_loop_conserves_energy_with_constant_shear_modulus() -> None:
    """Inside the yield surface a closed loop in strain returns the stress and the work."""
    model = CamClayConstantShearModulus(specific_volume=1.788)
    state = model.initial_state(START, void_ratio=torch.tensor([0.788]), preconsolidation=torch.tensor([4 * P0]))
    control = Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL))
    corners = 1e-3 * torch.tensor([[-1.0, -0.5], [0.5, -1.0], [0.0, 0.0]])
    result = march(model, CLAY, state, IncrementSchedule.of([ElementTest("loop", (LoadStage(control, corners, 4),))]))
    assert (result.states[-1, 0, :6] - state[0, :6]).abs().max().item() <= 1e-6


def test_plastic_work_is_never_negative_and_the_update_is_idempotent() -> None:
    model = CamClayConstantPoissonsRatio()
    control = Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL))
    result = run(model, LoadStage(control, torch.tensor([[-0.02, -P0], [-0.018, -P0], [-0.04, -P0]]), 5))
    for k in range(len(result.schedule)):
        increment = result.strains[k + 1] - result.strains[k]
        work = model.dissipation(result.states[k + 1], increment, result.states[k], CLAY)
        assert work.item() >= -1e-9
    from physics.constitutive.inelastic.law import update

    again = update(model, result.states[-1], torch.zeros(1, 6), CLAY).u
    assert ((again - result.states[-1]).abs() / (1 + result.states[-1].abs())).max().item() <= 1e-12


def test_bad_input_names_parameter_row_and_remedy() -> None:
    model = CamClayConstantPoissonsRatio()
    control = Control((Quantity.STRESS_AXIAL, Quantity.STRESS_RADIAL))
    crossed = {**CLAY, "swelling_index": torch.tensor(0.1)}
    with pytest.raises(InputError, match=r"swelling_index = 0.1 .* below compression_index = 0.077"):
        run(model, LoadStage(control, torch.tensor([[-3e5, -2e5]])), params=crossed)
    with pytest.raises(InputError, match="positive mean pressure"):
        model.initial_state(-START, void_ratio=torch.tensor([0.8]), preconsolidation=torch.tensor([P0]))
    with pytest.raises(ConvergenceError, match=r"row 2 \(stress_axial = 100000.*lower the stress"):
        run(model, LoadStage(control, torch.tensor([[-2.2e5, -2e5], [1e5, 1e5]]), 2))
