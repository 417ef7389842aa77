"""Forecasts with their uncertainty before and after, and what readings are worth: against dense linear algebra."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from bilevel.calibrate import Experiment, Noise, ObservationTable, Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.statistics.forecast_worth import forecasts_of

X = torch.linspace(0.0, 4.0, 9)
LINE = 2.0 + 3.0 * X + 0.1 * torch.sin(37.0 * torch.arange(9.0))
SIGMA, FAR, NEW = 0.1, torch.tensor([10.0, -1.0]), torch.tensor([0.5, 6.0, 9.0])
DESIGN = np.stack([np.ones(9), X.numpy()], 1) / SIGMA


def line(x):
    return lambda p: p["a"] + p["b"] * x


def scenario(name, x, weight):
    table = ObservationTable(torch.zeros(len(x)), torch.full((len(x),), weight), (name,) * len(x))
    return Experiment(name, FunctionModel(table, line(x)), table, parameters_of="data")


def forecasts(parameters):
    problem = problem_from_function(parameters, line(X), LINE, weight=1 / SIGMA)
    result = calibrate(problem, settings=Settings(noise=Noise.KNOWN, verify=False))
    scenarios, candidates = [scenario("far", FAR, 0.0)], [scenario("new", NEW, 1 / 0.2)]
    return result, forecasts_of(problem, result.evaluation, Noise.KNOWN, scenarios, candidates)


def variance(rows, x):
    slope = np.array([1.0, x])
    return float(slope @ np.linalg.solve(rows.T @ rows, slope))


def test_without_priors_the_std_is_that_of_the_line():
    _, (far, near) = forecasts([Parameter("a", 0.0), Parameter("b", 1.0)])
    assert (far.label, near.label) == ("far[1]", "far[2]")
    assert far.std == pytest.approx(math.sqrt(variance(DESIGN, 10.0)), rel=1e-10)
    assert far.upper95 - far.value == pytest.approx(1.959964 * far.std, rel=1e-6)
    assert math.isinf(far.prior_std)
    assert "before the calibration: without limit" in far.sentence


def test_priors_and_bounds_say_what_was_known_before():
    """A prior on a, and bounds of b that are four standard deviations apart."""
    _, (far, _) = forecasts([Parameter("a", 0.0, prior_mean=1.0, prior_std=2.0), Parameter("b", 1.0, 0.0, 8.0)])
    priors = np.diag([1 / 2.0, 4 / 8.0])
    assert far.prior_std == pytest.approx(math.sqrt(variance(priors, 10.0)), rel=1e-10)
    assert far.std == pytest.approx(math.sqrt(variance(np.concatenate([DESIGN, priors]), 10.0)), rel=1e-9)


def test_the_worth_of_a_reading_is_what_the_variance_rises_by_without_it():
    _, (far, _) = forecasts([Parameter("a", 0.0), Parameter("b", 1.0)])
    now = variance(DESIGN, 10.0)
    rises = {f"data[{i + 1}]": variance(np.delete(DESIGN, i, axis=0), 10.0) / now - 1 for i in range(9)}
    best = sorted(rises, key=lambda label: -rises[label])[:5]
    assert [worth.label for worth in far.readings] == best
    assert [worth.share for worth in far.readings] == pytest.approx([rises[label] for label in best], rel=1e-9)
    assert [worth.label for worth in far.groups] == ["data"]
    assert math.isinf(far.groups[0].share)


def test_the_worth_of_a_new_reading_is_what_the_variance_falls_by_with_it():
    _, (far, _) = forecasts([Parameter("a", 0.0), Parameter("b", 1.0)])
    now, added = variance(DESIGN, 10.0), np.stack([np.ones(3), NEW.numpy()], 1) / 0.2
    falls = [1 - variance(np.concatenate([DESIGN, row[None]]), 10.0) / now for row in added]
    assert [worth.label for worth in far.candidates] == ["new[3]", "new[2]", "new[1]"]
    assert [worth.share for worth in far.candidates] == pytest.approx(falls[::-1], rel=1e-9)
    both = 1 - variance(np.concatenate([DESIGN, added[1:]]), 10.0) / now
    assert [worth.label for worth in far.plan[:2]] == ["new[3]", "new[2]"]
    assert far.plan[1].share == pytest.approx(both, rel=1e-9)
    assert "of the possible readings new[3] would help most" in far.sentence


STUDY = """\
title: A line
model: {kind: expression, expr: "a + b * time"}
parameters:
  - {name: a, value: 0, units: m}
  - {name: b, value: 1, units: m/h}
observations:
  - file: data.csv
    value: {column: height, units: cm}
    columns: {time: {column: t, units: h}}
    std: 10
forecasts:
  - {name: later, file: places.csv, columns: {time: {column: t, units: h}}, units: cm}
  - {name: doubled, file: places.csv, columns: {time: {column: t, units: h}}, units: m, model: {expr: "a + 2 * b * time"}}
candidates:
  - {name: soon, file: places.csv, columns: {time: {column: t, units: h}}, units: cm, std: 10}
calibration: {noise: known}
"""


@pytest.fixture
def line_study(study):
    study.path.write_text(STUDY)
    rows = "\n".join(f"{t},{100 * y}" for t, y in zip(X.tolist(), LINE.tolist()))
    (study.folder / "data.csv").write_text(f"t,height\n{rows}\n")
    (study.folder / "places.csv").write_text("t\n10\n")
    return study


def test_a_study_predicts_other_scenarios_in_their_units(line_study, no_pictures):
    line_study.edit("calibration:", "profiles: [later]\ncalibration:")
    ran = line_study.call("run")
    assert ran.code == 0, ran.err
    result = json.loads((line_study.results / "result.json").read_text())
    a, b = (result["parameters"][name]["value"] for name in "ab")
    later, doubled = result["forecasts"]["later"], result["forecasts"]["doubled"]
    assert (later["value"], doubled["value"]) == pytest.approx((100 * (a + 10 * b), a + 20 * b), rel=1e-9)
    assert later["std"] == pytest.approx(100 * math.sqrt(variance(DESIGN, 10.0)), rel=1e-6)
    assert doubled["std"] == pytest.approx(math.sqrt(variance(DESIGN, 20.0)), rel=1e-6)
    assert list(later["variance_falls_with"]) == ["soon"]
    profile = result["profiles"]["later"]
    assert profile["interval95"] == pytest.approx(later["interval95"], rel=1e-3)
    assert list(result["phi_by_group"]) == ["data"]
    assert "later is 32" in ran.out


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("name: later", "name: data", "line 12", "there is something called 'data' already"),
        ("units: m, model", "units: kg, model", "line 13", "expr: makes"),
        ('"a + 2 * b * time"', '"a + 2 * c * time"', "line 13", "needs a parameter 'c'"),
        ("std: 10}", "std: 0}", "line 15", "greater than 0"),
        ("file: places.csv", "file: place.csv", "line 12", "there is no such file"),
        (
            "{time: {column: t, units: h}}, units: cm}",
            "{time: {column: u, units: h}}, units: cm}",
            "line 12",
            "no column 'u'",
        ),
    ],
)
def test_a_bad_forecast_is_one_line_with_its_place(line_study, old, new, line, what):
    line_study.edit(old, new)
    ran = line_study.call("check")
    assert ran.code == 2
    assert line in ran.err
    assert what in ran.err
    assert len(ran.err.splitlines()) == 1
