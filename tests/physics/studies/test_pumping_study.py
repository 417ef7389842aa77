"""The study model `pumping_test`: units, bad input, predictions, pictures, and what the data cannot tell."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bilevel.calibrate import calibrate, load_study, register_model
from bilevel.report import BilevelError, InputError
from physics.flow.well_functions import theis
from physics.studies.pumping_test import PumpingTestModel

EXAMPLES = Path(__file__).parents[3] / "examples"
STUDY = """\
title: A small test
model:
  kind: pumping_test
  aquifer: confined
  thickness: 70 dm
  discharge: 788 m3/d
  observation_wells: {near: 0.03 km, far: 90 m}
parameters:
  - {name: hydraulic_conductivity, value: 7.5e-4, lower: 1.0e-6, upper: 1, units: m/s}
  - {name: specific_storage, value: 2.5e-5, lower: 1.0e-7, upper: 1.0e-2, units: 1/m}
observations:
  - file: data.csv
    value: {column: drawdown, units: cm}
    columns: {time: {column: time, units: min}, well: well}
    group: {column: well}
"""
DATA = "time,well,drawdown\n10,near,60\n60,near,82\n30,far,36\n100,far,49\n"


@pytest.fixture(autouse=True)
def _registered():
    register_model("pumping_test", PumpingTestModel)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data.csv").write_text(DATA)
    (tmp_path / "study.yml").write_text(STUDY)
    return tmp_path


def test_units_reach_the_model_converted(folder):
    problem = load_study(folder / "study.yml").problem
    predicted = problem.predict(torch.from_numpy(problem.parameters.start())).numpy()
    conductivity = 7.5e-4 * 86400.0
    time, distance = np.array([10.0, 60.0, 30.0, 100.0]) / 1440.0, np.array([30.0, 30.0, 90.0, 90.0])
    exact = theis(time, distance, 7.0 * conductivity, 7.0 * 2.5e-5, 788.0)
    np.testing.assert_allclose(predicted, exact, rtol=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("thickness: 70 dm", "thickness: 70", "no units"),
        ("thickness: 70 dm", "thickness: 70 min", "do not convert"),
        ("thickness: 70 dm", "thickness: thick", "a number and its units"),
        ("thickness: 70 dm", "thickness: -7 m", "greater than 0"),
        ("788 m3/d", "0 m3/d", "discharge is zero"),
        ("788 m3/d", "[{start: 1 d, rate: 788 m3/d}]", "reading 1 at 0.00694444 d is earlier than pumping"),
        ("far: 90 m", "farther: 90 m", "well 'far' is not among"),
        ("near: 0.03 km", "near: 1 mm", "radii"),
        ("aquifer: confined", "aquifer: phreatic", "leaky"),
        (
            "aquifer: confined",
            "aquifer: unconfined\n  wellbore_storage: true",
            "must penetrate the whole of an aquifer",
        ),
        (
            "aquifer: confined",
            "aquifer: confined\n  wellbore_storage: true\n  screen: {bottom: 1 m, top: 3 m}",
            "must penetrate the whole of an aquifer",
        ),
        ("aquifer: confined", "aquifer: confined\n  screen: {bottom: 4 m, top: 9 m}", "not within the 7 m"),
        (
            "aquifer: confined",
            "aquifer: confined\n  screen: {bottom: 4 m, top: 3 m}",
            "top of a screen must not be below",
        ),
        (
            "aquifer: confined",
            "aquifer: confined\n  solution: closed_form\n  screen: {bottom: 4 m, top: 9 m}",
            "not within the 7 m",
        ),
        ("aquifer: confined", "aquifer: confined\n  solution: magic", "closed_form"),
        (
            "aquifer: confined",
            "aquifer: confined\n  displacement: 1 m",
            "one of discharge, wells, drawdown, head and displacement",
        ),
        ("discharge: 788 m3/d", "thick: 2", "thick"),
        ("far: 90 m", "far: {x: 90 m}", "expected a distance, or x and y"),
        (
            "aquifer: confined",
            "aquifer: confined\n  wellbore_storage: true\n  boundaries: [{x: 9 m, y: 0 m, along: [0, 1], kind: no_flow}]",
            "must be alone",
        ),
        (
            "aquifer: confined",
            "aquifer: confined\n  boundaries: [{x: 9 m, y: 0 m, along: [0, 0], kind: no_flow}]",
            "direction of a boundary",
        ),
        ("aquifer: confined", "aquifer: confined\n  depth: 3 m", "depth"),
        ("name: specific_storage", "name: storativity", "needs a parameter 'specific_storage'"),
    ],
)
def test_bad_input(folder, old, new, message):
    assert old in STUDY
    (folder / "study.yml").write_text(STUDY.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_study(folder / "study.yml")


@pytest.mark.parametrize("with_jacobian", [False, True])
def test_a_model_that_is_too_small_is_refused_where_a_jacobian_is_taken_too(folder, with_jacobian):
    (folder / "study.yml").write_text(STUDY.replace("  thickness: 70 dm", "  thickness: 70 dm\n  outer_radius: 300 m"))
    problem = load_study(folder / "study.yml").problem
    with pytest.raises(BilevelError, match="reaches the model's outer radius of 300 m"):
        problem.evaluate(problem.parameters.start(), with_jacobian)


def test_picture_shows_every_well(folder):
    study = load_study(folder / "study.yml")
    model = study.problem.experiments[0].model
    parameters = {"hydraulic_conductivity": torch.tensor(65.0), "specific_storage": torch.tensor(2.5e-5)}
    (picture,) = model.figures(parameters)
    (axes,) = pickle.loads(pickle.dumps(picture.drawing))().axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["near, r = 30 m", "far, r = 90 m"]
    circles, line = axes.lines[0], axes.lines[1]
    np.testing.assert_allclose(circles.get_ydata(), [0.60, 0.82])
    exact = theis(line.get_xdata(), 30.0, 7.0 * 65.0, 7.0 * 2.5e-5, 788.0)
    np.testing.assert_allclose(line.get_ydata(), exact, rtol=1e-3)


def test_what_draws_it_needs_no_pytorch():
    code = "import sys, physics.studies.pumping_pictures; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


VARIANTS = {
    "leaky": ("  aquifer: leaky\n", {"aquitard_resistance": "200, units: d"}),
    "stored": ("  aquifer: confined\n  wellbore_storage: true\n", {"casing_radius": "0.2, units: m"}),
    "screen": ("  aquifer: confined\n  screen: {bottom: 1 m, top: 3 m}\n", {"anisotropy": "0.1"}),
    "delayed": ("  aquifer: unconfined\n", {"specific_yield": "0.1", "anisotropy": "0.3"}),
    "wall": (
        "  aquifer: confined\n  boundaries: [{x: 60 m, y: 0 m, along: [1, 2], kind: no_flow}]\n",
        {},
    ),
    "wells": (
        "  aquifer: confined\n  wells: [{x: 0 m, y: 5 m, discharge: 500 m3/d}, {x: 20 m, y: -40 m, discharge: [{start: 0.01 d, rate: 3 L/s}]}]\n",
        {},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_solutions_agree(folder, variant):
    keys, parameters = VARIANTS[variant]
    text = STUDY.replace("  aquifer: confined\n", keys)
    if variant == "wells":
        text = text.replace("  discharge: 788 m3/d\n", "").replace("far: 90 m", "far: {x: 50 m, y: 60 m}")
    more = "".join(f"  - {{name: {name}, value: {value}}}\n" for name, value in parameters.items())
    text = text.replace("observations:", more + "observations:")
    found = []
    for solution in ("numerical", "closed_form"):
        (folder / "study.yml").write_text(text.replace("  thickness", f"  solution: {solution}\n  thickness"))
        problem = load_study(folder / "study.yml").problem
        found.append(problem.predict(torch.from_numpy(problem.parameters.start())))
    torch.testing.assert_close(found[0], found[1], rtol=0.0, atol=0.005 * float(found[1].max()))


def test_an_unconfined_aquifer_yields_late(folder):
    text = STUDY.replace("aquifer: confined", "aquifer: unconfined\n  solution: closed_form")
    text = text.replace("observations:", "  - {name: specific_yield, value: 0.2}\nobservations:")
    (folder / "study.yml").write_text(text)
    (folder / "data.csv").write_text("time,well,drawdown\n1e7,near,1\n1e7,far,1\n")
    problem = load_study(folder / "study.yml").problem
    late = problem.predict(torch.from_numpy(problem.parameters.start())).numpy()
    exact = theis(1e7 / 1440.0, np.array([30.0, 90.0]), 7.0 * 64.8, 0.2 + 7.0 * 2.5e-5, 788.0)
    np.testing.assert_allclose(late, exact, rtol=1e-3)


def test_a_slug_falls_from_its_displacement(folder):
    text = STUDY.replace("  discharge: 788 m3/d\n", "  displacement: 50 cm\n").replace("near: 0.03 km", "near: 0 m")
    text = text.replace("observations:", "  - {name: casing_radius, value: 5, units: cm}\nobservations:")
    (folder / "data.csv").write_text("time,well,drawdown\n1e-4,near,50\n1e-2,near,20\n1,near,1\n1,far,1\n")
    heads = []
    for solution in ("numerical", "closed_form"):
        (folder / "study.yml").write_text(text.replace("  thickness", f"  solution: {solution}\n  thickness"))
        problem = load_study(folder / "study.yml").problem
        heads.append(problem.predict(torch.from_numpy(problem.parameters.start())).numpy())
    np.testing.assert_allclose(heads[0], heads[1], atol=2.5e-3)
    assert heads[1][0] == pytest.approx(0.5, rel=0.05)
    assert 0.5 > heads[1][0] > heads[1][1] > heads[1][2] > 0.0


@pytest.mark.parametrize(
    "study",
    [
        "oude_korendijk/study",
        "oude_korendijk/P30",
        "oude_korendijk/P90",
        "oude_korendijk/P30_storage",
        "dalem/study",
    ],
)
def test_example_is_a_valid_study(study):
    problem = load_study(EXAMPLES / f"{study}.yml").problem
    assert problem.parameters.size == (3 if "dalem" in study or "storage" in study else 2)


def test_dalem_without_the_nearest_piezometer_does_not_tell_the_resistance():
    study = load_study(EXAMPLES / "dalem" / "without_P30.yml")
    result = calibrate(study.problem, settings=replace(study.settings, verify=False))
    print(result.identifiability.sentences)
    assert "aquitard_resistance" in result.identifiability.sentences
    assert "hydraulic_conductivity" not in result.identifiability.sentences


TWO = """\
title: Two aquifers
model:
  kind: pumping_test
  aquifer: two_aquifers
  solution: closed_form
  thickness: 10 m
  discharge: 500 m3/d
  observation_wells: {near: 30 m, above: {distance: 30 m, aquifer: other}}
parameters:
  - {name: hydraulic_conductivity, value: 20, units: m/d}
  - {name: specific_storage, value: 1.0e-4, units: 1/m}
  - {name: other_transmissivity, value: 80, units: m2/d}
  - {name: other_storativity, value: 2.0e-3}
  - {name: aquitard_resistance, value: 200, units: d}
observations:
  - file: data.csv
    value: {column: drawdown, units: cm}
    columns: {time: {column: time, units: min}, well: well}
"""


def test_two_aquifers_numerically_and_in_closed_form(tmp_path):
    (tmp_path / "data.csv").write_text("time,well,drawdown\n60,near,60\n60,above,1\n3000,near,82\n3000,above,9\n")
    found = []
    for solution in ("closed_form", "numerical"):
        (tmp_path / "study.yml").write_text(TWO.replace("closed_form", solution))
        problem = load_study(tmp_path / "study.yml").problem
        found.append(problem.predict(torch.from_numpy(problem.parameters.start())).numpy())
    assert np.abs(found[0] - found[1]).max() < 0.005 * found[1].max()
    assert 0 < found[1][1] < found[1][3] < found[1][2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "aquifer: two_aquifers",
            "aquifer: leaky",
            "an observation well in the other aquifer needs `aquifer: two_aquifers`",
        ),
        (
            "thickness: 10 m",
            "thickness: 10 m\n  wellbore_storage: true",
            "wells in two aquifers penetrate the whole of theirs",
        ),
        ("aquifer: other", "aquifer: lower", "'pumped' or 'other'"),
    ],
)
def test_bad_input_of_two_aquifers(tmp_path, old, new, message):
    (tmp_path / "data.csv").write_text("time,well,drawdown\n60,near,60\n60,above,1\n")
    (tmp_path / "study.yml").write_text(TWO.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_study(tmp_path / "study.yml")
