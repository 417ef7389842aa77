"""Jacobians by every sweep, through inner solves, over several experiments, offsets, and weights by rule."""

import json

import numpy as np
import pytest
import torch

import bilevel
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.model import Model, ModelConfig, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Method, Settings, Sweep
from bilevel.calibrate.study.registry import register_model
from bilevel.report import InputError


class Springs(Model):
    """Nonlinear springs: the elongation u minimises sum k u^2/2 + u^4/4 - load u; one state per observation."""

    columns = {"load": "N"}  # noqa: RUF012
    value_units = "m"

    def parameter_defaults(self):
        return {
            "stiffness": ParameterDefault("N/m", lower=0.0, transform="log"),
            "shift": ParameterDefault("N", value=0.0),
        }

    def simulate(self, parameters):
        load = self.observations.columns["load"]

        def energy(u, p):
            return (p["k"] * u**2 / 2 + u**4 / 4 - (load + p["shift"]) * u).sum()

        p = {"k": parameters["stiffness"], "shift": parameters["shift"]}
        self.solution = bilevel.argmin(energy, torch.zeros_like(load), p)
        return self.solution.u

    def reports(self):
        return ModelReports([self.solution.report], list(self.solution.gradients))


def table(load, value, group="g", offset=""):
    load, value = torch.as_tensor(load), torch.as_tensor(value)
    n = len(load)
    return ObservationTable(value, torch.ones(n), (group,) * n, {"load": load}, offset=(offset,) * n)


def spring(load, value, name="s", **options):
    observations = table(load, value, name, **options)
    return Experiment(name, Springs(ModelConfig(), observations, None), observations)


LOAD = np.array([0.5, 1.0, 2.0, 4.0])


def elongation(k, load):
    """The real root of u^3 + k u = load (Cardano)."""
    root = np.sqrt(load**2 / 4 + k**3 / 27)
    return np.cbrt(load / 2 + root) + np.cbrt(load / 2 - root)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("sweep", Sweep)
def test_jacobian_through_an_inner_solve_is_that_of_the_closed_form(sweep, batched, monkeypatch):
    monkeypatch.setattr(Springs, "batched", batched)
    problem = CalibrationProblem(
        [Parameter("stiffness", 1.5, transform="log")], [spring(LOAD, elongation(2.0, LOAD))], sweep
    )
    evaluation = problem.evaluate(problem.parameters.start())
    u = elongation(1.5, LOAD)
    np.testing.assert_allclose(evaluation.residual, u - elongation(2.0, LOAD), atol=1e-9)
    np.testing.assert_allclose(evaluation.jacobian[:, 0], -1.5 * u / (3 * u**2 + 1.5), rtol=1e-8)
    assert evaluation.inner_solves >= 1
    assert evaluation.counts.factorisations >= 1


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
def test_stiffness_is_found_through_the_inner_solves(method):
    problem = CalibrationProblem([Parameter("stiffness", 10.0, transform="log")], [spring(LOAD, elongation(2.0, LOAD))])
    result = calibrate(problem, settings=Settings(method=method, tolerance=1e-8))
    assert result.values["stiffness"] == pytest.approx(2.0, rel=1e-7)
    assert result.inner_solves > 0
    assert result.certificate.relative_error < 1e-6
    assert result.jacobian_error < 1e-6


def test_gradient_of_lbfgsb_is_that_of_the_jacobian():
    problem = CalibrationProblem(
        [Parameter("stiffness", 1.5, transform="log", prior_mean=3.0, prior_std=0.5)],
        [spring(LOAD, elongation(2.0, LOAD))],
    )
    t = problem.parameters.start()
    np.testing.assert_allclose(problem.evaluate(t, False).gradient, problem.evaluate(t, True).gradient, rtol=1e-8)


def test_experiments_share_the_stiffness_and_have_their_own_nuisances():
    """Two days: a load cell with its own zero shift each day, a gauge that was moved on the second."""
    parameters = [
        Parameter("stiffness", 5.0, transform="log"),
        Parameter("shift", 0.0, experiments=("day1",)),
        Parameter("shift", 0.0, experiments=("day2",)),
        Parameter("moved", 0.0, experiments=("day2",)),
    ]
    load = np.linspace(0.1, 5.0, 12)
    experiments = [
        spring(load, elongation(2.0, load + 0.3), "day1"),
        spring(load, elongation(2.0, load - 0.2) + 0.05, "day2", offset="moved"),
    ]
    problem = CalibrationProblem(parameters, experiments)
    jacobian = problem.evaluate(problem.parameters.start()).jacobian
    assert (jacobian[:12, 2:] == 0).all()
    assert (jacobian[12:, 1] == 0).all()
    result = calibrate(problem)
    expected = {"stiffness": 2.0, "shift@day1": 0.3, "shift@day2": -0.2, "moved@day2": 0.05}
    assert result.values == pytest.approx(expected, rel=1e-7)
    assert [g.label for g in result.groups] == ["day1", "day2"]


def test_a_field_with_more_entries_than_observations_and_a_prior():
    class Field(Model):
        def parameter_defaults(self):
            return {"k": ParameterDefault("", transform="log", size=20)}

        def simulate(self, parameters):
            return torch.stack([chunk.log().mean() for chunk in parameters["k"].chunk(4)])

    observations = ObservationTable(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.ones(4), ("g",) * 4)
    problem = CalibrationProblem(
        [Parameter("k", np.full(20, 1.0), transform="log", prior_mean=1.0, prior_std=100.0)],
        [Experiment("e", Field(ModelConfig(), observations, None), observations)],
    )
    evaluation = problem.evaluate(problem.parameters.start())
    np.testing.assert_allclose(evaluation.jacobian[:4], np.kron(np.eye(4), np.full((1, 5), 0.2)), atol=1e-14)
    result = calibrate(problem)
    means = np.log(result.values["k"]).reshape(4, 5).mean(axis=1)
    assert means == pytest.approx([0.1, 0.2, 0.3, 0.4], rel=2e-3)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ([Parameter("stifness", 1.0)], "needs a parameter 'stiffness'"),
        ([Parameter("stiffness", 1.0), Parameter("shft", 1.0)], "did you mean 'shift'"),
        ([Parameter("stiffness", [1.0, 2.0])], "the model takes a single number"),
        (
            [Parameter("stiffness", 1.0), Parameter("stiffness", 1.0, experiments=("s",))],
            "more than once for experiment 's'",
        ),
    ],
)
def test_names_that_do_not_fit_the_model(parameters, says):
    with pytest.raises(InputError, match=says):
        CalibrationProblem(parameters, [spring(LOAD, LOAD)])


def test_study_of_two_experiments_with_weights_by_rule(study, no_pictures):
    """Registered model, units, sign, where, group weights 1/mean absolute value, in one file."""
    register_model("test_springs", Springs)
    rows = ["day,load_kN,shortening_mm"]
    rows += [f"one,{x / 1000},{-1000 * elongation(2.0, x)}" for x in LOAD]
    rows += [f"two,{x / 1000},{-1000 * elongation(2.0, x)}" for x in 2 * LOAD]
    (study.folder / "data.csv").write_text("\n".join(rows) + "\n")
    entry = """
      - file: data.csv
        where: {{day: {0}}}
        value: {{column: shortening_mm, units: mm, sign: -1}}
        columns: {{load: {{column: load_kN, units: kN}}}}
        group: {0}
        weight: inverse_mean_absolute
"""
    study.path.write_text(
        "title: Springs\nmodel: {kind: test_springs}\n"
        "parameters: [{name: stiffness, value: 0.5, units: N/cm}]\nexperiments:\n"
        + "".join(f"  - name: {day}\n    observations:{entry.format(day)}" for day in ("one", "two"))
    )
    outcome = study.call("run")
    assert outcome.code == 0, outcome.err
    result = json.loads((study.results / "result.json").read_text())
    assert result["parameters"]["stiffness"]["value"] == pytest.approx(0.02, rel=1e-7)
    assert result["parameters"]["stiffness"]["transform"] == "log"
    weights = np.genfromtxt(study.results / "case.rei.csv", delimiter=",", names=True, dtype=None, encoding=None)[
        "weight"
    ]
    expected = 1 / np.mean(1000 * elongation(2.0, LOAD))
    assert weights[:4] == pytest.approx(expected)


def test_a_unit_of_the_wrong_dimension_is_refused(study):
    register_model("test_springs", Springs)
    study.path.write_text(
        "title: Springs\nmodel: {kind: test_springs}\n"
        "parameters: [{name: stiffness, value: 0.5, units: N/cm}]\n"
        "observations:\n  - file: data.csv\n    value: {column: height, units: cm}\n"
        "    columns: {load: {column: t, units: h}}\n"
    )
    outcome = study.call("run")
    assert outcome.code == 2
    assert "columns.load: units 'h' (s) do not convert to 'N' (m kg s^-2)" in outcome.err
    study.edit("units: h", "units: kN")
    study.edit("N/cm", "m/d")
    assert "parameter 'stiffness': units 'm/d'" in study.call("run").err
    study.edit(", units: m/d", "")
    assert "units are missing; the model works in N/m" in study.call("run").err
    study.edit("    columns: {load: {column: t, units: kN}}\n", "")
    assert "the model needs a column 'load' (N)" in study.call("run").err
