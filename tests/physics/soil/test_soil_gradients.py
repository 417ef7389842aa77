"""Derivatives of every soil model: consistent tangent, load-unload-reload gradients, quadratic convergence, bounds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from physics.constitutive.inelastic.cam_clay import CamClayConstantPoissonsRatio, CamClayConstantShearModulus
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.inelastic.intergranular import HypoplasticIntergranular
from physics.constitutive.inelastic.law import InelasticLaw, update
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.constitutive.mandel import axisymmetric
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march
from physics.soil.sensitivity import sensitive_march

FRICTIONAL = {
    "youngs_modulus": 20e6,
    "poissons_ratio": 0.3,
    "cohesion": 10e3,
    "friction_angle": 0.5,
    "dilatancy_angle": 0.1,
}
CLAY = {"compression_index": 0.077, "swelling_index": 0.0066, "critical_ratio": 1.2}
SAND = {
    "friction_angle": 0.576, "granular_hardness": 1e9, "hardness_exponent": 0.25, "void_ratio_min": 0.55,
    "void_ratio_critical": 0.95, "void_ratio_max": 1.05, "pyknotropy": 0.25, "barotropy": 1.5,
}  # fmt: skip
INTERGRANULAR = {
    "intergranular_radius": 5e-3, "transverse_stiffness": 2.0, "reversal_stiffness": 5.0,
    "intergranular_growth": 0.5, "intergranular_exponent": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    material: InelasticLaw
    values: dict[str, float]
    internal: tuple[float, ...] = ()
    step: float = 1e-2

    @property
    def shear(self) -> Tensor:
        """A strain increment without any symmetry."""
        return self.step * torch.tensor([[-1.0, 0.3, 0.35, 0.2, -0.1, 0.3]])

    @property
    def params(self) -> dict[str, Tensor]:
        return {name: torch.tensor(value) for name, value in self.values.items()}

    def start(self) -> Tensor:
        return torch.cat([axisymmetric(torch.tensor([-1.1e5]), torch.tensor([-1e5])), torch.tensor([self.internal])], 1)


CASES = [
    Case(DruckerPrager(), FRICTIONAL),
    Case(MohrCoulomb(), FRICTIONAL),
    Case(CamClayConstantShearModulus(), {**CLAY, "shear_modulus": 8e6}, (1.2e5, 0.8, 0.0)),
    Case(CamClayConstantPoissonsRatio(), {**CLAY, "poissons_ratio": 0.3}, (1.2e5, 0.8, 0.0)),
    Case(Hypoplastic(), SAND, (0.7,)),
    Case(HypoplasticIntergranular(), {**SAND, **INTERGRANULAR}, (0.7, 2e-3, -1e-3, -1e-3, 0.0, 0.0, 0.0), 1e-3),
]
every_model = pytest.mark.parametrize("case", CASES, ids=lambda c: type(c.material).__name__)


@every_model
def test_consistent_tangent_against_differences(case: Case) -> None:
    """Central differences of the stress, relative to the stiffness, at a plastic increment without any symmetry."""
    start, params = case.start(), case.params
    state = update(case.material, start, case.shear, params).u
    tangent = case.material.consistent_tangent(state, case.shear, start, params)[0]
    step = 1e-7
    rows = torch.eye(6) * step
    shifted = update(case.material, start.expand(12, -1), torch.cat([case.shear + rows, case.shear - rows]), params).u[
        :, :6
    ]
    differences = ((shifted[:6] - shifted[6:]) / (2 * step)).T
    assert (tangent - differences).abs().max().item() <= 1e-7 * tangent.abs().max().item()


@every_model
def test_layer_differentiates_the_update(case: Case) -> None:
    """The layer's vector-Jacobian product is the consistent tangent's."""
    increment = case.shear.clone().requires_grad_()
    state = update(case.material, case.start(), increment, case.params).u
    (gradient,) = torch.autograd.grad(state[0, 0], increment)
    tangent = case.material.consistent_tangent(state.detach(), case.shear, case.start(), case.params)[0]
    assert torch.allclose(gradient[0], tangent[0], rtol=1e-9, atol=1e-9 * tangent.abs().max().item())


def test_tangents_are_unsymmetric_where_flow_is_not_associated() -> None:
    case = CASES[0]
    state = update(case.material, case.start(), case.shear, case.params).u
    tangent = case.material.consistent_tangent(state, case.shear, case.start(), case.params)[0]
    assert (tangent - tangent.T).abs().max().item() > 1e-2 * tangent.abs().max().item()


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (len(case.values) > 10)) for case in CASES],
    ids=lambda c: type(c.material).__name__,
)
def test_gradient_through_load_unload_reload(case: Case) -> None:
    """Forward and reverse sweeps against central differences, for each parameter alone and for all together."""
    control = Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL))
    path = LoadStage(control, 1e-2 * torch.tensor([[-1.0, 0.2], [-0.9, 0.17], [-1.6, 0.4]]), 3)
    schedule = IncrementSchedule.of([ElementTest("loop", (path,))])
    base, names = torch.tensor(list(case.values.values())), list(case.values)

    def outcome(scale: Tensor, forward: bool) -> Tensor:
        params = dict(zip(names, (base * scale).unbind()))
        start = case.start()
        run = (
            sensitive_march(case.material, params, lambda _: start, schedule)
            if forward
            else march(case.material, params, start, schedule)
        )
        return (run.states[:, 0, :6] / 1e5).square().sum()

    one = torch.ones(len(names))
    by_sweep = torch.func.jacrev(lambda s: outcome(s, True))(one)
    by_chain = torch.func.grad(lambda s: outcome(s, False))(one)
    step = 1e-5
    directions = [*torch.eye(len(names)), torch.ones(len(names))]
    with torch.no_grad():
        differences = [
            ((outcome(one + step * d, True) - outcome(one - step * d, True)) / (2 * step)).item() for d in directions
        ]
    size = max(abs(x) for x in differences)
    for direction, difference in zip(directions, differences):
        assert (by_sweep @ direction).item() == pytest.approx(difference, rel=1e-6, abs=1e-6 * size)
    assert torch.allclose(by_chain, by_sweep, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("second", [torch.func.jacrev, torch.func.jacfwd], ids=["reverse", "forward"])
@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=lambda c: type(c.material).__name__)
def test_second_derivatives_of_a_sensitive_march(case: Case, second) -> None:
    control = Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL))
    path = LoadStage(control, 1e-2 * torch.tensor([[-1.0, 0.2], [-0.9, 0.17]]), 1)
    schedule = IncrementSchedule.of([ElementTest("loop", (path,))])
    names = list(case.values)[:2]

    def outcome(scale: Tensor) -> Tensor:
        params = dict(case.params) | {name: case.params[name] * s for name, s in zip(names, scale.unbind())}
        start = case.start()
        return (sensitive_march(case.material, params, lambda _: start, schedule).states[:, 0, :6] / 1e5).square().sum()

    one, step = torch.ones(2), 1e-5
    slope = torch.func.grad(outcome)
    differences = torch.stack([(slope(one + step * d) - slope(one - step * d)) / (2 * step) for d in torch.eye(2)])
    found = second(slope)(one)
    assert torch.allclose(found, differences, rtol=1e-5, atol=1e-6 * float(differences.abs().max()))
    theta = one.clone().requires_grad_()
    (first,) = torch.autograd.grad(outcome(theta), theta, create_graph=True)
    (twice,) = torch.autograd.grad(first.sum(), theta)
    assert torch.allclose(twice, found.sum(0), rtol=1e-9, atol=1e-9 * float(differences.abs().max()))


@every_model
def test_local_newton_converges_quadratically(case: Case) -> None:
    history = update(case.material, case.start(), case.shear, case.params).report.history
    residuals = [r for r in history if 1e-9 < r < 1e-2]
    assert all(after <= 1e3 * before**2 or after <= 1e-3 * before for before, after in itertools.pairwise(residuals))
    assert len(history) <= 12


@every_model
def test_update_twice_changes_nothing(case: Case) -> None:
    state = update(case.material, case.start(), case.shear, case.params).u
    again = update(case.material, state, torch.zeros(1, 6), case.params).u
    assert ((again - state).abs() / (1 + state.abs())).max().item() <= 1e-12


@every_model
def test_no_drift_along_load_unload_reload(case: Case) -> None:
    """Neither a repeated update of any state on the way, nor one of the last state a hundred times, moves anything."""
    control = Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL))
    path = LoadStage(control, 1e-2 * torch.tensor([[-1.0, 0.2], [-0.9, 0.17], [-1.6, 0.4]]), 3)
    states = march(
        case.material, case.params, case.start(), IncrementSchedule.of([ElementTest("loop", (path,))])
    ).states[:, 0]
    still = torch.zeros(len(states), 6)
    again = update(case.material, states, still, case.params).u
    assert ((again - states).abs() / (1 + states.abs())).max().item() <= 1e-12
    for _ in range(100):
        again = update(case.material, again, still, case.params).u
    assert ((again - states).abs() / (1 + states.abs())).max().item() <= 1e-11


@every_model
@settings(max_examples=25, deadline=None)
@given(free=st.lists(st.floats(-6.0, 6.0), min_size=13, max_size=13))
def test_free_variables_never_leave_the_physical_bounds(case: Case, free: list[float]) -> None:
    parameters = case.material.parameters
    variables = torch.tensor(free[: len(parameters.names)])
    values = parameters.constrain(variables)
    parameters.check(values, "model")
    back = parameters.release(values)
    assert torch.allclose(back, variables, atol=1e-6)
