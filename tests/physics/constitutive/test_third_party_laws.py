"""Laws that somebody else wrote, one file each, in packages of their own: bodies, element tests and studies take them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from packages import write_package

import bilevel
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.constitutive import Hardening, Hyperelastic, InelasticLaw, Kinematics, find_law, make_law, update
from physics.constitutive.inelastic.j2 import J2Plasticity
from physics.constitutive.testing import check_law
from physics.discretisation import box, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march
from physics.solids import HomogeneousDeformation, Loading, Mode, Solid, Traction, incompressible_stress, load_history
from physics.studies.rubber_tests import RubberTests
from physics.studies.tension_test import TensionTest

GENT = '''
"""The Gent solid."""

import torch
from physics.constitutive import Hyperelastic, LawParameter, LawParameters, determinant


class Gent(Hyperelastic):
    """W = - mu J_m / 2 ln(1 - (J^(-2/3) tr C - 3) / J_m) + K/2 (J - 1)^2 (Gent 1996)."""

    parameters = LawParameters(
        LawParameter("mu", "Pa", lower=0.0, description="shear modulus"),
        LawParameter("j_m", lower=0.0, description="limit of the first invariant"),
        LawParameter("bulk_modulus", "Pa", lower=0.0, volumetric=True, description="bulk modulus"),
    )

    def energy(self, x, params):
        j = determinant(x)
        excess = j ** (-2.0 / 3.0) * (x * x).sum((-2, -1)) - 3.0
        distortion = -0.5 * params["mu"] * params["j_m"] * torch.log1p(-excess / params["j_m"])
        return distortion + 0.5 * params["bulk_modulus"] * (j - 1.0) ** 2
'''
PERZYNA = '''
"""Overstress viscoplasticity with von Mises' yield surface."""

import math

import torch
from physics.constitutive import InelasticLaw, LameParameters, LawParameter, LawParameters
from physics.constitutive.lame import ELASTIC
from physics.constitutive.mandel import deviator, identity, norm, trace


class Perzyna(InelasticLaw):
    """Plastic strain rate = <q - yield stress> / viscosity along the deviator (Perzyna 1966), by backward Euler.

    duration: of each increment, s.
    """

    parameters = ELASTIC + LawParameters(
        LawParameter("yield_stress", "Pa", lower=0.0, description="yield stress at rest"),
        LawParameter("viscosity", "Pa s", lower=0.0, description="overstress per rate of plastic strain"),
        LawParameter("duration", "s", lower=0.0, description="of each increment"),
    )

    def residual(self, state, increment, previous, params):
        elastic = LameParameters.of(params)
        trial = previous + elastic.stress(increment)
        size = math.sqrt(1.5) * norm(deviator(state))
        rate = (size - params["yield_stress"]).clamp(min=0.0) / params["viscosity"]
        safe = torch.where(size > 0.0, size, 1.0)
        shrink = 1.0 + 3.0 * elastic.mu * rate * params["duration"] / safe
        balance = shrink.unsqueeze(-1) * deviator(state) - deviator(trial)
        volume = (trace(state - trial) / 3.0).unsqueeze(-1) * identity(state)
        return (balance + volume) / elastic.mu
'''
LUDWIK = '''
"""Ludwik's hardening, regularised at the onset of yielding."""

from physics.constitutive import Hardening, LawParameter, LawParameters


class Ludwik(Hardening):
    """yield_stress + strength ((strain + e)^n - e^n), e = 1e-4 (Ludwik 1909)."""

    parameters = LawParameters(
        LawParameter("yield_stress", "Pa", lower=0.0, description="initial yield stress"),
        LawParameter("strength", "Pa", lower=0.0, description="rise at unit plastic strain"),
        LawParameter("n", lower=0.0, upper=1.0, description="exponent"),
    )

    def flow_stress(self, plastic_strain, params):
        rise = (plastic_strain + 1e-4) ** params["n"] - 1e-4 ** params["n"]
        return params["yield_stress"] + params["strength"] * rise
'''
SOURCES = {"their_gent": GENT, "their_perzyna": PERZYNA, "their_ludwik": LUDWIK}


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module, source in SOURCES.items():
        name = module.removeprefix("their_")
        write_package(tmp_path, module, source, {"bilevel.laws": {name: f"{module}:{name.capitalize()}"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield
    for module in SOURCES:
        sys.modules.pop(module, None)


def values(**numbers: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in numbers.items()}


RUBBER = {"mu": 0.4, "j_m": 30.0, "bulk_modulus": 5.0}
CREEP = {"youngs_modulus": 1e3, "poissons_ratio": 0.3, "yield_stress": 5.0, "viscosity": 50.0, "duration": 0.1}
STEEL = {"youngs_modulus": 200e9, "poissons_ratio": 0.3, "yield_stress": 250e6, "strength": 600e6, "n": 0.4}


def test_each_takes_no_more_than_forty_lines() -> None:
    assert all(len(source.strip().splitlines()) <= 40 for source in SOURCES.values())


def test_their_derivatives_hold() -> None:
    check_law(make_law("gent", Hyperelastic), values(**RUBBER), size=0.1)
    check_law(make_law("perzyna", InelasticLaw), values(**CREEP))
    check_law(J2Plasticity(make_law("ludwik", Hardening)), values(**STEEL))


def gent_stress(stretch: torch.Tensor) -> torch.Tensor:
    """Uniaxial nominal stress of the incompressible solid."""
    excess = stretch**2 + 2.0 / stretch - 3.0
    return RUBBER["mu"] * RUBBER["j_m"] / (RUBBER["j_m"] - excess) * (stretch - stretch**-2)


def test_gent_in_the_homogeneous_tests_of_rubber() -> None:
    law, stretch = make_law("gent", Hyperelastic), torch.linspace(0.7, 3.0, 9)
    loading = Loading.of([Mode.UNIAXIAL] * 9, stretch)
    rigid = incompressible_stress(law, loading, values(mu=RUBBER["mu"], j_m=RUBBER["j_m"]))
    assert rigid[:, 0].tolist() == pytest.approx(gent_stress(stretch).tolist(), rel=1e-12, abs=1e-13)
    soft = HomogeneousDeformation(law, loading)
    params = values(**{**RUBBER, "bulk_modulus": 5e4})
    stress = soft.nominal_stress(bilevel.argmin(soft, soft.start(), params).u, params)
    assert (stress[:, 0] - rigid[:, 0]).abs().max() < 1e-3


@pytest.mark.parametrize("kinematics", [None, Kinematics.PLANE_STRAIN, Kinematics.AXISYMMETRIC])
def test_gent_in_a_body(kinematics: Kinematics | None) -> None:
    """A bar that is free to contract follows the homogeneous driver; in the plane the gradient is that of a Taylor test."""
    law, params = make_law("gent", Hyperelastic), values(**RUBBER)
    mesh = box(2, 1, 1) if kinematics is None else rectangle(2, 2)
    solid = Solid(mesh, law, kinematics, [mesh.fixed("bottom")], [Traction("pull", "top")])
    pull = torch.tensor([0.0, 0.1] if kinematics else [0.0, 0.1, 0.0])

    def lift(mu: torch.Tensor) -> torch.Tensor:
        given = {"material": {**params, "mu": mu}, "pull": pull}
        return solid.expand(solid.solve(given).u, given)[mesh.nodes_on("top"), 1].mean()

    check = bilevel.check_gradient(lift, torch.tensor(0.4), direction=torch.tensor(0.1))
    assert check.order >= 1.95
    assert check.best <= 1e-6


def test_gent_in_a_study() -> None:
    ones, stretch = torch.ones(3), torch.tensor([1.1, 1.5, 2.0])
    table = ObservationTable(ones, ones, ("a",) * 3, {"stretch": stretch}, {"mode": ("uniaxial",) * 3})
    model = RubberTests(RubberTests.Config(law="gent"), table, Path())
    defaults = model.parameter_defaults()
    assert {name: (d.units, d.lower, d.transform) for name, d in defaults.items()} == {
        "mu": ("Pa", 0.0, "log"),
        "j_m": ("", 0.0, "log"),
    }
    found = model.simulate(values(mu=RUBBER["mu"], j_m=RUBBER["j_m"]))
    assert found.tolist() == pytest.approx(gent_stress(stretch).tolist(), rel=1e-12)
    with pytest.raises(InputError, match="the law 'gent' has no option 'terms'"):
        RubberTests(RubberTests.Config(law="gent", terms=2), table, Path())


def relaxed(strain: float, steps: int) -> float:
    """Backward Euler of the overstress in shear-free uniaxial strain: s' = s_trial - 3 G <q - y> dt / viscosity."""
    young, ratio, yielding, viscosity, step = CREEP.values()
    shear = young / (2.0 * (1.0 + ratio))
    q = 2.0 * shear * strain
    for _ in range(steps):
        beyond = max(q - yielding, 0.0)
        q -= 3.0 * shear * step / viscosity * beyond / (1.0 + 3.0 * shear * step / viscosity)
    return q


def test_perzyna_at_a_point_in_an_element_test_and_in_a_body() -> None:
    law, params = make_law("perzyna", InelasticLaw), values(**CREEP)
    strain, hold = 0.02, 3
    jump = torch.tensor([[strain, 0.0, 0.0, 0.0, 0.0, 0.0]])
    state = law.initial_state(torch.zeros(1, 6))
    for k in range(hold + 1):
        state = update(law, state, jump if k == 0 else 0.0 * jump, params).u
    expected = relaxed(strain, hold + 1)
    assert (state[0, 0] - state[0, 1]).item() == pytest.approx(expected, rel=1e-10)

    path = LoadStage(Control((Quantity.STRAIN_AXIAL, Quantity.STRAIN_RADIAL)), torch.tensor([[strain, 0.0]]))
    tests = IncrementSchedule.of([ElementTest("jump", (path,))])
    after = march(law, params, law.initial_state(torch.zeros(1, 6)), tests).states[-1, 0]
    assert (after[0] - after[1]).item() == pytest.approx(relaxed(strain, 1), rel=1e-9)

    mesh = rectangle(2, 1)
    slides = [mesh.fixed("left", [0]), mesh.fixed("bottom", [1]), mesh.fixed("top", [1])]
    pulled = Dirichlet("pull", mesh.nodes_on("right"), [0])
    solid = Solid(mesh, law, Kinematics.PLANE_STRAIN, [*slides, pulled])
    history = load_history(solid, {"material": params}, {"boundary": {"pull": torch.full((hold + 1,), strain)}})
    stress = history.state[-1].reshape(-1, 6)
    assert (stress[:, 0] - stress[:, 1] - expected).abs().max() < 1e-8


def test_ludwik_hardens_steel_in_a_study_and_in_a_body() -> None:
    ones, strain = torch.ones(3), torch.tensor([0.0005, 0.02, 0.2])
    table = ObservationTable(ones, ones, ("a",) * 3, {"strain": strain}, {})
    model = TensionTest(TensionTest.Config(hardening="ludwik", strain="logarithmic"), table, Path())
    stress = model.simulate(values(**STEEL, seating=0.0))
    plastic = strain - stress / STEEL["youngs_modulus"]
    law = find_law("ludwik", Hardening)()
    assert stress[0].item() == pytest.approx(STEEL["youngs_modulus"] * 0.0005)
    assert stress[1:].tolist() == pytest.approx(law.flow_stress(plastic, values(**STEEL))[1:].tolist(), rel=1e-12)

    mesh = box(1, 1, 1)
    slides = [mesh.fixed("left", [0]), mesh.fixed("bottom", [1]), mesh.fixed("front", [2])]
    pulled = Dirichlet("pull", mesh.nodes_on("right"), [0])
    solid = Solid(mesh, J2Plasticity(law), None, [*slides, pulled])
    steps = {"boundary": {"pull": torch.linspace(0.0, 0.02, 6)[1:]}}
    found = load_history(solid, {"material": values(**STEEL)}, steps)
    assert found.state[-1, 0, :, 0].tolist() == pytest.approx([stress[1].item()] * 8, rel=1e-8)


def test_a_name_that_no_law_or_two_laws_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no Hyperelastic named 'perzyna'; known are .*gent.*neo_hookean"):
        find_law("perzyna", Hyperelastic)
    other = tmp_path / "other"
    other.mkdir()
    write_package(other, "another_gent", GENT, {"bilevel.laws": {"gent": "another_gent:Gent"}})
    monkeypatch.syspath_prepend(str(other))
    importlib.invalidate_caches()
    with pytest.raises(InputError, match="two laws named 'gent': another_gent:Gent and their_gent:Gent"):
        find_law("gent", Hyperelastic)
