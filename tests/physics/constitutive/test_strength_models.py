"""Drucker-Prager, Mohr-Coulomb and Hoek-Brown against closed forms: strength in the triaxial test, apex, edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevel.report import BilevelError
from physics.constitutive.inelastic.drucker_prager import DruckerPrager, MatchedTo
from physics.constitutive.inelastic.hoek_brown import HoekBrown
from physics.constitutive.inelastic.law import InelasticLaw, ReturnMapping, update
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.constitutive.mandel import axisymmetric, equivalent_stress, trace
from physics.constitutive.spectral import principal_values
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march

DEGREE = math.pi / 180.0
SOIL = {
    "youngs_modulus": torch.tensor(20e6),
    "poissons_ratio": torch.tensor(0.3),
    "cohesion": torch.tensor(20e3),
    "friction_angle": torch.tensor(30.0 * DEGREE),
    "dilatancy_angle": torch.tensor(10.0 * DEGREE),
}
MODELS = [DruckerPrager(), MohrCoulomb()]
by_name = pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)


def triaxial(model: ReturnMapping, confinement: list[float], strain: float) -> torch.Tensor:
    """Axial stress of drained tests at the end, compression positive."""
    tests = [
        ElementTest(
            f"cell {s:g} Pa",
            (LoadStage(Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL)), torch.tensor([[strain, -s]]), 12),),
        )
        for s in confinement
    ]
    start = axisymmetric(-torch.tensor(confinement), -torch.tensor(confinement))
    return -march(model, SOIL, start, IncrementSchedule.of(tests)).states[-1, :, 0]


@by_name
def test_triaxial_compression_strength(model: ReturnMapping) -> None:
    strength = triaxial(model, [100e3, 0.0], strain=-0.06)
    assert strength[0].item() == pytest.approx(369282.032, abs=1e-3)
    assert strength[1].item() == pytest.approx(69282.032, abs=1e-3)


@pytest.mark.parametrize("model", [DruckerPrager(MatchedTo.EXTENSION), MohrCoulomb()], ids=["DP", "MC"])
def test_triaxial_extension_strength(model: ReturnMapping) -> None:
    """sigma3 = (sigma1 - 2 c sqrt(N)) / N with N = tan^2(45 + phi/2) = 3 and the cell pressure as sigma1."""
    strength = triaxial(model, [300e3], strain=0.06)
    assert strength[0].item() == pytest.approx((300e3 - 2 * 20e3 * math.sqrt(3.0)) / 3.0, abs=1e-3)


@by_name
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_hydrostatic_tension_returns_to_the_apex(model: ReturnMapping, size: float) -> None:
    strain = size * torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    stress = update(model, torch.zeros(1, 6), strain, SOIL).u
    assert trace(stress).item() == pytest.approx(3 * 20e3 / math.tan(30 * DEGREE), rel=1e-12)
    assert equivalent_stress(stress).item() <= 1e-8
    assert abs(model.yield_function(stress, SOIL).item()) <= 1e-8  # type: ignore[attr-defined]


@by_name
@settings(max_examples=60, deadline=None)
@given(
    strain=st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6),
    dilatancy=st.floats(0.0, 30.0),
    pressure=st.floats(0.0, 5e5),
)
def test_update_is_admissible_idempotent_and_dissipative(
    model: ReturnMapping, strain: list[float], dilatancy: float, pressure: float
) -> None:
    soil = {**SOIL, "dilatancy_angle": torch.tensor(dilatancy * DEGREE)}
    before = -pressure * torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    increment = torch.tensor([strain])
    after = update(model, before, increment, soil).u
    scale = 20e6 * 0.05
    assert model.yield_function(after, soil).item() <= 1e-10 * scale  # type: ignore[attr-defined]
    again = update(model, after, torch.zeros(1, 6), soil).u
    assert (again - after).abs().max().item() <= 1e-12 * scale
    assert model.dissipation(after, increment, before, soil).item() >= -1e-12 * scale


def test_mohr_coulomb_return_is_the_closest_point_for_associated_flow() -> None:
    """Variational check of plane, edge and apex returns: (trial - returned) : C : (returned - y) >= 0 for admissible y."""
    soil = {**SOIL, "dilatancy_angle": SOIL["friction_angle"]}
    model = MohrCoulomb()
    strain = 0.02 * torch.randn(400, 6)
    returned = update(model, torch.zeros(400, 6), strain, soil).u
    plastic = model.plastic_increment(returned, strain, torch.zeros(400, 6), soil)
    inside = update(model, torch.zeros(400, 6), 0.02 * torch.randn(400, 6), soil).u
    work = (plastic.unsqueeze(1) * (returned.unsqueeze(1) - inside.unsqueeze(0))).sum(-1)
    assert work.min().item() >= -1e-6
    gaps = principal_values(returned)
    assert ((gaps[:, 0] - gaps[:, 1]).abs() < 1e-6).any()
    assert ((gaps[:, 1] - gaps[:, 2]).abs() < 1e-6).any()


def test_the_tangent_of_mohr_coulomb_in_closed_form_is_that_of_the_implicit_function_theorem() -> None:
    """Elastic points, planes, both edges, apices and equal principal stresses; one set of constants a point."""
    before = -20e3 * torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).expand(400, 6)
    strain = 1e-3 * torch.randn(400, 6)
    strain[:20], strain[20:60, 3:] = 0.0, 0.0
    strain[60:120, :3] += 5e-3
    soil = {**SOIL, "cohesion": torch.linspace(1e3, 3e4, 400), "dilatancy_angle": torch.tensor(5 * DEGREE)}
    model = MohrCoulomb()
    after = model.advance(strain, before, soil)
    found = model.consistent_tangent(after, strain, before, soil)
    expected = InelasticLaw.consistent_tangent(model, after, strain, before, soil)
    assert (found - expected).abs().max().item() <= 1e-12 * 20e6
    changed = (found - found[:1]).abs().amax((1, 2)) > 1e3
    assert 100 < int(changed.sum()) < 380


def test_hoek_brown_strength() -> None:
    """Hoek, Carranza-Torres & Corkum 2002: intact rock (GSI 100) has s = 1, a = 1/2, so uniaxial strength is sigma_ci."""
    rock = HoekBrown()
    intact = {
        "uniaxial_strength": torch.tensor(50e6),
        "intact_constant": torch.tensor(10.0),
        "geological_strength_index": torch.tensor(100.0),
        "disturbance": torch.tensor(0.0),
    }
    assert rock.strength(torch.tensor(0.0), intact).item() == pytest.approx(50e6, rel=1e-3)
    broken = {**intact, "geological_strength_index": torch.tensor(45.0)}
    mb, s, a = rock.constants(broken)
    assert (mb.item(), s.item(), a.item()) == pytest.approx((1.403, 0.00222, 0.508), rel=2e-3)
    tensile = rock.tensile_strength(broken)
    assert rock.strength(-tensile, broken).item() == pytest.approx(-tensile.item(), rel=1e-9)
    angle, cohesion = rock.tangent_mohr_coulomb(torch.tensor(5e6), broken)
    passive = (1 + torch.sin(angle)) / (1 - torch.sin(angle))
    step = 1.0
    slope = (rock.strength(torch.tensor(5e6 + step), broken) - rock.strength(torch.tensor(5e6 - step), broken)) / (
        2 * step
    )
    assert passive.item() == pytest.approx(slope.item(), rel=1e-6)
    line = passive * 5e6 + 2 * cohesion * torch.sqrt(passive)
    assert line.item() == pytest.approx(rock.strength(torch.tensor(5e6), broken).item(), rel=1e-12)


@pytest.mark.parametrize("first", ["increment", "friction_angle"])
@pytest.mark.parametrize("second", ["increment", "friction_angle"])
def test_second_derivatives_of_mohr_coulomb_are_refused(first: str, second: str) -> None:
    """The frame of principal stresses is held fixed in the first ones, so second ones would be wrong in silence."""
    of = {
        "increment": torch.tensor([[-0.01, 3e-3, 3e-3, 2e-3, 0.0, 1e-3]], requires_grad=True),
        "friction_angle": torch.tensor(0.5, requires_grad=True),
    }
    soil = {**SOIL, "friction_angle": of["friction_angle"]}
    stress = update(MohrCoulomb(), torch.zeros(1, 6) - 1e5, of["increment"], soil).u
    (gradient,) = torch.autograd.grad(stress[0, 0], of[first], create_graph=True)
    with pytest.raises(BilevelError, match=r"second derivatives .* \(Mohr-Coulomb\) are not available"):
        torch.autograd.grad(gradient.sum(), of[second])


def test_forward_over_reverse_of_mohr_coulomb_is_refused() -> None:
    model, strain = MohrCoulomb(), torch.tensor([[-0.01, 3e-3, 3e-3, 2e-3, 0.0, 1e-3]])
    slope = torch.func.grad(lambda increment: model.advance(increment, torch.zeros(1, 6), SOIL)[0, 0])
    with pytest.raises(BilevelError, match="use first derivatives, or Drucker-Prager"):
        torch.func.jvp(slope, (strain,), (strain,))
