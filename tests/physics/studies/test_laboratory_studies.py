"""Laboratory studies: strength envelopes, flow curves, biaxial rubber, nuisances of single tests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.optimize import brentq

from bilevel import InputError
from bilevel.calibrate import calibrate, load_study
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.examples import write_example
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.hardening import LinearHardening, Voce
from physics.constitutive.inelastic.hardening_sum import HardeningSum
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.studies.flow_curve import FlowCurve
from physics.studies.rubber_tests import RubberTests
from physics.studies.strength_envelope import DruckerPragerStrength, MohrCoulombStrength, StrengthEnvelope
from physics.studies.tension_test import TensionTest

MINOR = torch.tensor([0.0, 50e3, 100e3, 400e3], dtype=torch.float64)
PARAMETERS = {"cohesion": torch.tensor(20e3), "friction_angle": torch.tensor(math.radians(31.0))}
ELASTIC = {
    "youngs_modulus": torch.tensor(1e8),
    "poissons_ratio": torch.tensor(0.3),
    "dilatancy_angle": torch.tensor(0.0),
}


def principal(major, intermediate, minor):
    """Tension positive stresses (rows, 6) in Mandel form."""
    zero = torch.zeros_like(minor)
    return -torch.stack([major, intermediate, minor, zero, zero, zero], -1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("criterion", "law"), [(MohrCoulombStrength(), MohrCoulomb()), (DruckerPragerStrength(), DruckerPrager())])  # fmt: skip
def test_strength_is_where_the_law_yields(criterion, law, share):
    """The yield function of the law vanishes there, true triaxial stresses included."""
    middle = MINOR + share * 30e3
    major = criterion.major(MINOR, middle, PARAMETERS)
    value = law.yield_function(principal(major, middle, MINOR), {**PARAMETERS, **ELASTIC})
    np.testing.assert_allclose(value / major, 0.0, atol=1e-12)
    assert (major > middle).all()


def test_the_two_agree_in_triaxial_compression():
    given = (MINOR, MINOR, PARAMETERS)
    torch.testing.assert_close(MohrCoulombStrength().major(*given), DruckerPragerStrength().major(*given))


TABLE = "minor,major\n0,62\n50,214\n100,352\n200,689\n400,1290\n"
STUDY = """\
title: Strength
model: {kind: strength_envelope, criterion: mohr_coulomb}
parameters:
  - {name: cohesion, value: 10, units: kPa, transform: none}
  - {name: friction_angle, value: 25, units: deg, transform: none}
observations:
  - file: tests.csv
    value: {column: major, units: kPa}
    columns: {minor: {column: minor, units: kPa}}
"""


def test_a_line_through_triaxial_tests_is_linear_regression(tmp_path):
    """Mohr-Coulomb is a straight line in s1 over s3, so its parameters follow from slope and intercept."""
    (tmp_path / "study.yml").write_text(STUDY)
    (tmp_path / "tests.csv").write_text(TABLE)
    study = load_study(tmp_path / "study.yml")
    values = calibrate(study.problem).values
    data = np.genfromtxt(tmp_path / "tests.csv", delimiter=",", skip_header=1)
    slope, intercept = np.polyfit(data[:, 0], data[:, 1], 1)
    assert values["friction_angle"] == pytest.approx(math.degrees(math.asin((slope - 1) / (slope + 1))), rel=1e-6)
    assert values["cohesion"] == pytest.approx(intercept / (2 * math.sqrt(slope)), rel=1e-6)


def test_intact_rock_is_found_again(tmp_path):
    text = STUDY.replace("mohr_coulomb", "hoek_brown").replace("kPa", "MPa")
    start = text.index("  - {name: cohesion")
    text = text[:start] + """\
  - {name: uniaxial_strength, value: 50, units: MPa}
  - {name: intact_constant, value: 5}
  - {name: geological_strength_index, value: 100, fixed: true}
  - {name: disturbance, value: 0, fixed: true}
""" + text[text.index("observations"):]  # fmt: skip
    minor = np.array([0.0, 5, 10, 20, 40])
    major = minor + 80 * np.sqrt(12 * minor / 80 + 1)
    (tmp_path / "study.yml").write_text(text)
    (tmp_path / "tests.csv").write_text(
        "minor,major\n" + "".join(f"{a},{b!r}\n" for a, b in zip(minor, major.tolist()))
    )
    values = calibrate(load_study(tmp_path / "study.yml").problem).values
    assert values["uniaxial_strength"] == pytest.approx(80, rel=1e-6)
    assert values["intact_constant"] == pytest.approx(12, rel=1e-6)


def rows(value, columns, labels=None):
    value = torch.as_tensor(value, dtype=torch.float64)
    columns = {name: torch.as_tensor(x, dtype=torch.float64) for name, x in columns.items()}
    return ObservationTable(value, torch.ones_like(value), ("a",) * len(value), columns, labels or {})


def test_stresses_out_of_order_are_refused():
    config = StrengthEnvelope.Config(criterion="mohr_coulomb")
    with pytest.raises(InputError, match="row 1: principal stresses are out of order"):
        StrengthEnvelope(config, rows([3.0, -3.0], {"minor": [1.0, -1.0]}), Path())
    with pytest.raises(InputError, match="row 0: principal stresses are out of order"):
        StrengthEnvelope(config, rows([3.0], {"minor": [1.0], "intermediate": [4.0]}), Path())


def test_terms_of_hardening_add_up():
    strain = torch.linspace(0, 0.3, 7, dtype=torch.float64)
    values = {"yield_stress": 200e6, "saturation_stress_1": 80e6, "saturation_rate_1": 40.0, "hardening_modulus_2": 5e8}
    given = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    both = HardeningSum([Voce(), LinearHardening()])
    assert [p.name for p in both.parameters] == list(values)
    expected = 200e6 + 80e6 * (1 - np.exp(-40 * strain.numpy())) + 5e8 * strain.numpy()
    np.testing.assert_allclose(both.flow_stress(strain, given), expected, rtol=1e-14)
    model = FlowCurve(FlowCurve.Config(hardening=["voce", "linear_hardening"]), rows(expected, {"plastic_strain": strain}), Path())  # fmt: skip
    assert list(model.parameter_defaults()) == list(values)
    np.testing.assert_allclose(model.simulate(given), expected, rtol=1e-14)
    grown = both.growth(torch.tensor([400e6], dtype=torch.float64), torch.zeros(1), torch.tensor(2e11), given)
    root = brentq(
        lambda d: 400e6 - 2e11 * d - float(both.flow_stress(torch.tensor([d]), given)[0]), 0, 2e-3, xtol=1e-16
    )
    assert float(grown[0]) == pytest.approx(root, rel=1e-9)


def test_a_negative_plastic_strain_is_refused():
    with pytest.raises(InputError, match="row 1: the plastic strain is negative"):
        FlowCurve(FlowCurve.Config(hardening=["voce"]), rows([1.0, 1.0], {"plastic_strain": [0.0, -0.1]}), Path())


def test_biaxial_tests_of_rubber_hold_the_other_modes_and_both_directions():
    """Mooney-Rivlin: P_i = 2 (l_i - l3^2/l_i) (C10 + C01 l_j^2), incompressible (Rivlin & Saunders 1951)."""
    first, second = np.array([1.3, 2.0, 1.7, 1.7]), np.array([1.3, 1.0, 1.2, 1.2])
    columns = {"stretch": first, "second_stretch": second, "direction": [1, 1, 1, 2]}
    mode = {"mode": ("biaxial",) * 4}
    model = RubberTests(RubberTests.Config(law="mooney_rivlin"), rows(np.ones(4), columns, mode), Path())
    names = list(model.parameter_defaults())
    stress = model.simulate({names[0]: torch.tensor(2e5), names[1]: torch.tensor(3e4)}).numpy()
    third = 1 / (first * second)
    own, other = np.where([True, True, True, False], first, second), np.where([True, True, True, False], second, first)
    np.testing.assert_allclose(stress, 2 * (own - third**2 / own) * (2e5 + 3e4 * other**2), rtol=1e-12)
    with pytest.raises(InputError, match="needs its second stretch"):
        RubberTests(RubberTests.Config(law="mooney_rivlin"), rows(np.ones(4), {"stretch": first}, mode), Path())
    with pytest.raises(InputError, match="row 3: direction 2 is none of a uniaxial test"):
        RubberTests(
            RubberTests.Config(law="mooney_rivlin"), rows(np.ones(4), columns, {"mode": ("uniaxial",) * 4}), Path()
        )


def test_a_bar_that_seats_late():
    """The same curve, shifted: the seating strain is found again beside the law's parameters."""
    strain = np.linspace(0.002, 0.2, 30)
    config = TensionTest.Config(strain="logarithmic")
    given = {"youngs_modulus": 2e11, "yield_stress": 3e8, "saturation_stress": 2e8, "saturation_rate": 12.0}
    values = {name: torch.tensor(v, dtype=torch.float64) for name, v in given.items()}
    early = TensionTest(config, rows(np.ones(30), {"strain": strain}), Path())
    late = TensionTest(config, rows(np.ones(30), {"strain": strain + 0.01}), Path())
    at_once = early.simulate({**values, "seating": torch.tensor(0.0, dtype=torch.float64)})
    shifted = late.simulate({**values, "seating": torch.tensor(0.01, dtype=torch.float64)})
    torch.testing.assert_close(at_once, shifted, rtol=1e-10, atol=0.0)
    assert early.parameter_defaults()["seating"].value == 0.0


@pytest.mark.slow
def test_the_void_ratio_of_a_test_may_be_a_parameter(tmp_path):
    """At the table's value nothing changes; its derivative is that of finite differences."""
    write_example("hochstetten_sand", tmp_path / "sand")
    path = tmp_path / "sand" / "study.yml"
    content = yaml.safe_load(path.read_text())
    for section in content["model"]["tables"]:
        section.pop("increments", None)
    plain = load_study(path).problem
    test = plain.experiments[0].model.tests[0]
    content["model"]["void_ratios"] = [test.name]
    content["parameters"] = [
        {key: x for key, x in p.items() if "prior" not in key} | {"fixed": True} for p in content["parameters"]
    ]
    content["parameters"].append({"name": f"void_ratio of {test.name}", "value": test.void_ratio})
    path.write_text(yaml.safe_dump(content))
    problem = load_study(path).problem
    t = problem.parameters.start()
    evaluation = problem.evaluate(t)
    h = 1e-5
    difference = (problem.residual(t + h) - problem.residual(t - h)) / (2 * h)
    np.testing.assert_allclose(evaluation.jacobian[:, 0], difference, rtol=1e-4, atol=1e-5 * abs(difference).max())
    content["model"]["void_ratios"] = ["nobody"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="void_ratios: there is no test 'nobody'"):
        load_study(path)
