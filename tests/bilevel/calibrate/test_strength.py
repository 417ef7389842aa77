"""The strength of a field's prior, by three rules, against dense linear algebra that knows nothing of the loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar

from bilevel.calibrate import Experiment, FieldPrior, ObservationTable, Parameter, Settings
from bilevel.calibrate.fit.strength import choose_strength
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Strength, StrengthRule
from bilevel.report import InputError

N, M, SIGMA = 30, 20, 0.02
DEPTH = np.linspace(0, 1, N)
KERNEL = np.exp(-((np.linspace(0, 1, M)[:, None] - DEPTH) ** 2) / 0.02) / N
DATA = KERNEL @ (1 + np.sin(5 * DEPTH)) + SIGMA * np.random.default_rng(4).normal(size=M)
ROUGHNESS = np.diff(np.eye(N), axis=0) / 0.1


class Smooth(FunctionModel):
    """A field known to be smooth."""

    def field_priors(self):
        return [FieldPrior.of("field", ROUGHNESS)]


def problem(bend=0.0, sigma=SIGMA):
    def predict(p):
        field = p["field"] + bend * p["field"] ** 2
        return torch.as_tensor(KERNEL) @ field

    table = ObservationTable(torch.as_tensor(DATA), torch.full((M,), 1 / sigma), ("data",) * M)
    return CalibrationProblem([Parameter("field", np.ones(N))], [Experiment("data", Smooth(table, predict), table)])


def solved(strength):
    """phi of the readings, phi of the field, trace of the influence matrix."""
    a = KERNEL / SIGMA
    information = a.T @ a + strength * ROUGHNESS.T @ ROUGHNESS
    field = np.linalg.solve(information, a.T @ DATA / SIGMA)
    trace = np.trace(np.linalg.solve(information, a.T @ a))
    return np.sum((a @ field - DATA / SIGMA) ** 2), np.sum((ROUGHNESS @ field) ** 2), trace


def curvature(log):
    h = 0.05
    x, y = np.log([solved(math.exp(log + k * h))[:2] for k in (-1, 0, 1)]).T
    dx, dy = (x[2] - x[0]) / (2 * h), (y[2] - y[0]) / (2 * h)
    ddx, ddy = (x[2] - 2 * x[1] + x[0]) / h**2, (y[2] - 2 * y[1] + y[0]) / h**2
    return (dx * ddy - dy * ddx) / (dx**2 + dy**2) ** 1.5


def reference(rule):
    if rule is StrengthRule.DISCREPANCY:
        return brentq(lambda log: solved(math.exp(log))[0] - M, -20, 20)
    if rule is StrengthRule.GCV:

        def score(log):
            phi, _, trace = solved(math.exp(log))
            return phi / (M - trace) ** 2
    else:

        def score(log):
            return -curvature(log)

    grid = np.linspace(-14, 10, 121)
    best = grid[np.argmin([score(log) for log in grid])]
    return minimize_scalar(score, bounds=(best - 0.2, best + 0.2), method="bounded").x


@pytest.mark.parametrize("rule", list(StrengthRule))
def test_lambda_is_that_of_a_dense_reference(rule):
    found = choose_strength(problem(), Strength(rule), Settings())
    assert math.log(found.strength) == pytest.approx(reference(rule), abs=0.1)
    phi, rough, trace = solved(found.strength)
    last = found.fits[-1]
    assert (last.phi, last.phi_fields, last.determined) == pytest.approx((phi, rough, trace), rel=1e-6)


def test_a_bent_model_is_cooled_to_its_target():
    found = choose_strength(problem(bend=0.3), Strength(StrengthRule.DISCREPANCY, 1.2), Settings())
    assert found.fits[-1].phi / M == pytest.approx(1.2, rel=0.02)
    assert "by the discrepancy principle: phi is 1.2 for each reading" in found.sentence


def test_a_target_out_of_reach_says_between_what_it_lies():
    with pytest.raises(InputError, match=r"no strength gives phi = 1e\+06 for each reading; it lies between"):
        choose_strength(problem(), Strength(StrengthRule.DISCREPANCY, 1e6), Settings())


def test_a_study_without_a_field_has_nothing_to_choose():
    table = ObservationTable(torch.as_tensor(DATA), torch.ones(M), ("data",) * M)
    bare = CalibrationProblem(
        [Parameter("a", 1.0)], [Experiment("data", FunctionModel(table, lambda p: p["a"] * torch.ones(M)), table)]
    )
    with pytest.raises(InputError, match="no model of this study has a prior of its own"):
        choose_strength(bare, Strength(StrengthRule.GCV), Settings())


STUDY = """\
title: A smooth field
model: {kind: python, file: model.py, name: Image}
parameters:
  - {name: field, value: {file: start.npy}}
observations:
  - file: data.csv
    value: {column: d}
    columns: {x: x}
    std: 0.02
strength: discrepancy
profiles: ["field[3]"]
calibration: {noise: known}
"""
MODEL = """\
import numpy as np
import torch

from bilevel.calibrate import FieldPrior, Model

DEPTH = torch.linspace(0, 1, 30, dtype=torch.float64)


class Image(Model):
    def simulate(self, parameters):
        x = self.observations.columns["x"]
        return torch.exp(-((x[:, None] - DEPTH) ** 2) / 0.02) @ parameters["field"] / 30

    def field_priors(self):
        return [FieldPrior.of("field", np.diff(np.eye(30), axis=0) / 0.1)]
"""


@pytest.fixture
def image(study):
    study.path.write_text(STUDY)
    (study.folder / "model.py").write_text(MODEL)
    rows = "\n".join(f"{x!r},{d!r}" for x, d in zip(np.linspace(0, 1, M).tolist(), DATA.tolist()))
    (study.folder / "data.csv").write_text(f"x,d\n{rows}\n")
    np.save(study.folder / "start.npy", np.ones(N))
    return study


def test_a_study_smooths_its_field_as_its_readings_ask(image, no_pictures):
    ran = image.call("run")
    assert ran.code == 0, ran.err
    result = json.loads((image.results / "result.json").read_text())
    assert result["phi"] - result["phi_prior"] == pytest.approx(M, rel=0.01)
    assert math.log(result["strength"]["strength"]) == pytest.approx(reference(StrengthRule.DISCREPANCY), abs=0.1)
    profile = result["profiles"]["field[3]"]  # of the same problem, whose linear theory holds
    assert min(profile["phi"]) == pytest.approx(result["phi"], rel=1e-6)
    assert profile["interval95"] == pytest.approx(profile["interval95_linear"], rel=1e-3)
    assert image.call("resume").code == 0
    again = json.loads((image.results / "result.json").read_text())
    assert (again["strength"], again["parameters"]) == (result["strength"], result["parameters"])


def test_no_field_no_strength(study):
    study.edit("title: Decay", "title: Decay\nstrength: {rule: gcv}")
    ran = study.call("check")
    assert ran.code == 2
    assert "line 2: strength: no model of this study has a prior" in ran.err
