"""Covariances from files and in Python: of the readings' errors, and of several parameters before the calibration."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bilevel.calibrate import JointPrior, Method, Parameter, Settings, calibrate, load_study
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import HERE
from bilevel.calibrate.fit.problem_source import GivenProblem
from bilevel.calibrate.function_problem import FunctionModel, problem_from_function
from bilevel.calibrate.misfit import GroupNoise
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.pest.control_file import read_pst
from bilevel.calibrate.pest.export import write_pest_case
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Ensemble, EnsembleMethod, Loss, Noise
from bilevel.calibrate.statistics.ensemble import ensemble
from bilevel.calibrate.statistics.forecast_worth import forecasts_of
from bilevel.cli import app
from bilevel.report import InputError

X = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
DESIGN = np.stack([np.ones(12), X.numpy()], axis=1)
DICE = np.random.default_rng(5)
ERRORS = 0.01 * np.exp(-np.abs(np.subtract.outer(X.numpy(), X.numpy())) / 0.3) * np.outer(1 + X, 1 + X)
DATA = torch.as_tensor(DESIGN @ [2.0, 3.0] + np.linalg.cholesky(ERRORS) @ DICE.normal(size=12))
KNOWN = Settings(noise=Noise.KNOWN, verify=False)


def line(covariance=ERRORS, weight=None, noise=None, model=lambda p: p["a"] + p["b"] * X, data=DATA, extra=()):
    weight = torch.ones(12, dtype=torch.float64) if weight is None else weight
    given = {} if covariance is None else {"data": torch.as_tensor(covariance)}
    table = ObservationTable(data, weight, ("data",) * 12, columns={"x": X}, covariance=given, noise=noise or {})
    return CalibrationProblem(
        [Parameter("a", 1.0), Parameter("b", 1.0), *extra], [Experiment("data", FunctionModel(table, model), table)]
    )


def gls(covariance, rows=slice(None)):
    """Generalised least squares (Aitken 1936): estimates and their covariance."""
    precision, design = np.linalg.inv(covariance[rows][:, rows]), DESIGN[rows]
    spread = np.linalg.inv(design.T @ precision @ design)
    return spread @ design.T @ precision @ DATA.numpy()[rows], spread


def test_a_line_under_correlated_errors_is_that_of_generalised_least_squares():
    result = calibrate(line(), settings=KNOWN)
    estimates, spread = gls(ERRORS)
    np.testing.assert_allclose(result.evaluation.t, estimates, rtol=1e-9)
    np.testing.assert_allclose(result.statistics.covariance, spread, rtol=1e-8)
    left = DATA.numpy() - DESIGN @ estimates
    assert result.evaluation.phi == pytest.approx(left @ np.linalg.inv(ERRORS) @ left, rel=1e-9)
    # standard deviations of predictions and the bands about them
    np.testing.assert_allclose(result.forecasts.std, np.sqrt(np.diag(DESIGN @ spread @ DESIGN.T)), rtol=1e-7)


def test_a_diagonal_covariance_is_the_std_that_it_says():
    std = 0.1 * (1 + X)
    plain = calibrate(line(covariance=None, weight=1 / std), settings=KNOWN)
    whole = calibrate(line(covariance=np.diag(std.numpy() ** 2)), settings=KNOWN)
    np.testing.assert_allclose(whole.evaluation.t, plain.evaluation.t, rtol=1e-10)
    np.testing.assert_allclose(whole.statistics.std, plain.statistics.std, rtol=1e-10)
    assert whole.evaluation.phi == pytest.approx(plain.evaluation.phi, rel=1e-10)


def test_rows_of_weight_zero_leave_the_marginal_covariance_of_the_others():
    weight = torch.ones(12, dtype=torch.float64).index_fill(0, torch.tensor([0, 5]), 0.0)
    result = calibrate(line(weight=weight), settings=KNOWN)
    kept = np.flatnonzero(weight.numpy())
    estimates, spread = gls(ERRORS, kept)
    np.testing.assert_allclose(result.evaluation.t, estimates, rtol=1e-9)
    np.testing.assert_allclose(result.statistics.covariance, spread, rtol=1e-8)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_derivatives_of_whitened_residuals(logarithmic):
    noise = {"data": GroupNoise(logarithmic=logarithmic)}
    p = line(noise=noise, model=lambda p: torch.exp(p["a"] * X) + p["b"] ** 2)
    t = np.array([0.7, 1.1])
    exact, h = p.evaluate(t), 1e-6
    numerical = [(p.residual(t + h * e) - p.residual(t - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(exact.jacobian, np.stack(numerical, axis=1), rtol=1e-6, atol=1e-6)
    gradient = p.evaluate(t, with_jacobian=False).gradient
    np.testing.assert_allclose(gradient, exact.gradient, rtol=1e-10)


def test_moved_readings_have_the_covariance():
    misfit = line().misfit
    root = torch.stack([misfit.drawn(e) for e in torch.eye(12, dtype=torch.float64)], dim=1)
    np.testing.assert_allclose((root @ root.T).numpy(), ERRORS, rtol=1e-10, atol=1e-15)


def test_what_a_reading_is_worth_among_correlated_ones():
    p = line()
    result = calibrate(p, settings=KNOWN)
    table = ObservationTable(torch.zeros(1), torch.zeros(1), ("far",), columns={"x": torch.tensor([4.0])})
    far = Experiment("far", FunctionModel(table, lambda p: (p["a"] + 4.0 * p["b"]).reshape(1)), table, "data")
    (found,) = forecasts_of(p, result.evaluation, Noise.KNOWN, [far])
    slope = np.array([1.0, 4.0])
    whole = slope @ gls(ERRORS)[1] @ slope
    assert found.std == pytest.approx(np.sqrt(whole), rel=1e-8)
    for worth in found.readings:
        row = int(worth.label.removeprefix("data[").removesuffix("]")) - 1
        without = slope @ gls(ERRORS, np.delete(np.arange(12), row))[1] @ slope
        assert worth.share == pytest.approx(without / whole - 1, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"covariance": np.eye(3)}, "3 x 3, and the group has 12 rows"),
        ({"covariance": np.ones((12, 12))}, "not positive definite"),
        ({"covariance": ERRORS + 1e-3 * np.eye(12, k=1)}, "is symmetric"),
        ({"covariance": ERRORS - 2 * np.diag(np.diag(ERRORS))}, "not positive"),
        ({"covariance": np.full((12, 12), np.nan)}, "is finite"),
        ({"noise": {"data": GroupNoise(Loss.HUBER)}}, "the loss 'huber'"),
        ({"noise": {"data": GroupNoise(correlated="")}}, "a correlation to be found"),
    ],
)
def test_what_is_no_covariance_of_errors(change, what):
    with pytest.raises(InputError, match=what):
        line(**change)


PRIOR = JointPrior(("a", "b"), np.array([1.5, 3.5]), np.array([[0.04, -0.03], [-0.03, 0.09]]), np.array([False, False]))
STD = 0.1


def test_a_prior_of_two_parameters_beside_data_in_closed_form():
    p = line(covariance=STD**2 * np.eye(12)).changed(joint_priors=[PRIOR])
    result = calibrate(p, settings=KNOWN)
    precision = DESIGN.T @ DESIGN / STD**2 + np.linalg.inv(PRIOR.covariance)
    mean = np.linalg.solve(precision, DESIGN.T @ DATA.numpy() / STD**2 + np.linalg.solve(PRIOR.covariance, PRIOR.mean))
    np.testing.assert_allclose(result.evaluation.t, mean, rtol=1e-9)
    np.testing.assert_allclose(result.statistics.covariance, np.linalg.inv(precision), rtol=1e-8)
    without = calibrate(p, settings=Settings(noise=Noise.KNOWN, verify=False, method=Method.KRYLOV))
    np.testing.assert_allclose(without.evaluation.t, mean, rtol=1e-6)


def test_a_prior_of_logarithms_and_one_fixed_entry():
    """The prior of a field's entries and of a scalar, in any transform; a fixed entry leaves the conditional one."""
    covariance = np.array([[0.25, 0.1, 0.0], [0.1, 0.16, 0.05], [0.0, 0.05, 0.09]])
    prior = JointPrior(("k[0]", "k[1]", "c"), np.array([2.0, 1.0, 0.5]), covariance, np.array([True, True, False]))
    parameters = [Parameter("k", [1.0, 1.0], transform="log"), Parameter("c", 0.9, fixed=True)]
    table = ObservationTable(torch.tensor([2.0]), torch.tensor([0.0, 1e-9][1:]), ("d",))
    model = FunctionModel(table, lambda p: p["k"].sum().reshape(1))
    p = CalibrationProblem(parameters, [Experiment("d", model, table)], joint_priors=[prior])
    t = np.array([0.3, -0.2])
    c = np.array([0.3 - np.log(2.0), -0.2, 0.9 - 0.5])
    residual = p.prior_residual(torch.as_tensor(t)).numpy()
    assert residual @ residual == pytest.approx(c @ np.linalg.inv(covariance) @ c, rel=1e-12)
    found = calibrate(p, settings=KNOWN)
    conditional = np.log([2.0, 1.0]) + covariance[:2, 2] / covariance[2, 2] * 0.4
    np.testing.assert_allclose(found.evaluation.t, conditional, rtol=1e-6)
    from bilevel.calibrate.matrix_free.prior import prior_jacobian

    np.testing.assert_allclose(prior_jacobian(p, t).toarray(), p.evaluate(t).jacobian[1:], rtol=1e-10, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("method", [EnsembleMethod.SMOOTHER, EnsembleMethod.RML])
def test_samples_know_a_prior_of_two_parameters(method):
    p = line(covariance=100.0 * np.eye(12)).changed(joint_priors=[PRIOR])  # data that say next to nothing
    result = calibrate(p, settings=KNOWN)
    found = ensemble(
        p, result.evaluation, Ensemble(300, method), settings=KNOWN, workers=HERE, source=GivenProblem(p)
    ).values
    np.testing.assert_allclose(found.mean(0), result.evaluation.t, atol=0.07)
    np.testing.assert_allclose(np.cov(found.T), PRIOR.covariance, atol=0.02)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"labels": ("a", "c")}, "no parameter or entry 'c'"),
        ({"labels": ("a", "a")}, "named twice"),
        ({"covariance": np.ones((2, 2))}, "not positive definite"),
        ({"covariance": np.eye(3)}, "shape"),
        ({"mean": np.array([1.0, -1.0]), "logarithmic": np.array([False, True])}, "must be positive"),
    ],
)
def test_what_is_no_prior_of_two_parameters(change, what):
    given = {name: getattr(PRIOR, name) for name in ("labels", "mean", "covariance", "logarithmic")} | change
    with pytest.raises(InputError, match=what):
        line().changed(joint_priors=[JointPrior(**given)])


def test_a_parameter_has_one_prior():
    own = [Parameter("a", 1.0, prior_mean=1.0, prior_std=1.0), Parameter("b", 1.0)]
    with pytest.raises(InputError, match="'a' has a prior already"):
        line().changed(parameters=own, joint_priors=[PRIOR])


def test_a_failing_experiment_takes_its_entries_with_it():
    parameters = [Parameter("a", 1.0), Parameter("b", 1.0, experiments=("two",))]
    tables = [ObservationTable(torch.ones(3), torch.ones(3), (name,) * 3) for name in ("one", "two")]
    models = [
        FunctionModel(tables[0], lambda p: p["a"].expand(3)),
        FunctionModel(tables[1], lambda p: (p["a"] + p["b"]).expand(3)),
    ]
    experiments = [Experiment(n, m, t) for n, m, t in zip(("one", "two"), models, tables)]
    prior = JointPrior(("a", "b@two"), PRIOR.mean, PRIOR.covariance, PRIOR.logarithmic)
    left = CalibrationProblem(parameters, experiments, joint_priors=[prior]).without("two", np.array([1.0, 1.0]))
    (kept,) = left.joint_priors
    assert (kept.labels, float(kept.covariance[0, 0])) == (("a",), 0.04)


STUDY = """
title: A line
case: first
model: {kind: expression, expr: "a + log(k) * x"}
parameters:
  - {name: a, value: 1.0}
  - {name: k, value: 5.0, transform: log, lower: 1e-3, upper: 1e6}
  - {name: twice, expr: 2 * k}
observations:
  - {file: early.csv, value: y, columns: {x: x}, std: 0.1}
calibration: {noise: known, verify: false}
"""


@pytest.fixture
def folder(tmp_path):
    """Readings of 2 + 3 x in two files."""
    for name, rows in (("early", range(6)), ("late", range(6, 12))):
        lines = [f"{float(X[i])!r},{float(DATA[i])!r}" for i in rows]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *lines]) + "\n")
    (tmp_path / "first.yml").write_text(STUDY)
    return tmp_path


def fitted(folder, text, name="second"):
    (folder / f"{name}.yml").write_text(text)
    return calibrate(load_study(folder / f"{name}.yml").problem, settings=KNOWN)


LATER = STUDY.replace("early.csv", "late.csv").replace(
    "observations:", "prior_covariance:\n  - first.post.cov.csv\nobservations:"
)


def test_an_earlier_study_is_the_prior_of_a_later_one(folder):
    """What one study knows, as its files say it, and another's readings: the same as one study of all readings."""
    ran = CliRunner().invoke(app, ["run", str(folder / "first.yml"), "--out", str(folder / "out")])
    assert ran.exit_code == 0, ran.output
    (folder / "first.post.cov.csv").write_bytes((folder / "out" / "first.post.cov.csv").read_bytes())
    both = STUDY.replace("std: 0.1}", "std: 0.1}\n  - {file: late.csv, value: y, columns: {x: x}, std: 0.1}")
    at_once, later = fitted(folder, both, "both"), fitted(folder, LATER)
    np.testing.assert_allclose(later.evaluation.t, at_once.evaluation.t, rtol=1e-6)
    np.testing.assert_allclose(later.statistics.covariance_t, at_once.statistics.covariance_t, rtol=1e-6)
    with open(folder / "first.post.cov.csv") as stream:
        header, first, *_ = csv.reader(stream)
    assert header == ["parameter", "transform", "units", "value", "a", "k", "twice"]
    assert first[:3] == ["a", "none", ""]


def test_a_covariance_of_pest_is_of_decimal_logarithms(folder):
    matrix = PRIOR.covariance / np.outer([1.0, np.log(10)], [1.0, np.log(10)])
    rows = "\n".join(" ".join(f"{x:.16e}" for x in row) for row in matrix)
    (folder / "prior.cov").write_text(f"2 2 1\n{rows}\n* row and column names\na\nk\n")
    text = LATER.replace("first.post.cov.csv", "prior.cov").replace("value: 1.0", "value: 1.0, prior_mean: 1.5")
    problem = load_study_of(folder, text)
    (prior,) = problem.joint_priors
    np.testing.assert_allclose(prior.covariance, PRIOR.covariance, rtol=1e-12)
    assert (prior.mean.tolist(), prior.logarithmic.tolist()) == ([1.5, 5.0], [False, True])


def load_study_of(folder, text):
    (folder / "study.yml").write_text(text)
    return load_study(folder / "study.yml").problem


@pytest.mark.parametrize(
    ("file", "keys", "what"),
    [
        (",a,kk\na,1,0\nkk,0,1\n", "", "the study has no parameter 'kk'; did you mean 'k'?"),
        (",a,k\na,1,0\nk,0,1\n", "", "say whether the covariance is that of values"),
        (",a,k\na,1,0\nk,0,1\n", "scale: log10, parameters: [b]", "has no row 'b'"),
        (",a,k\na,1,0\nk,0,x\n", "scale: log", "line 3, column 'k': expected a number, got 'x'"),
        (",a\na,1\nk,0\n", "scale: log", "the row 'k' has no column"),
        (",a,k\na,1,2\nk,2,1\n", "scale: log", "not positive definite"),
        ("1 0\n0 1\n", "", "its rows have no names"),
        ("1 0\n0\n", "", "line 2: expected 2 numbers"),
        ("1 0 0\n0 1 0\n", "", "expected a square matrix, got 2 x 3"),
        ("parameter,transform,a,k\na,none,1,0\nk,ln,0,1\n", "", "transform is none or log, not 'ln'"),
        (",twice\ntwice,1\n", "parameters: [twice]", "'twice' follows from a formula"),
    ],
)
def test_what_is_wrong_with_a_file_of_a_prior(folder, file, keys, what):
    (folder / "prior.csv").write_text(file)
    text = LATER.replace("- first.post.cov.csv", f"- {{file: prior.csv{', ' if keys else ''}{keys}}}")
    with pytest.raises(InputError) as error:
        load_study_of(folder, text)
    assert what in str(error.value)
    assert str(error.value).startswith(str(folder))


def test_a_mean_belongs_to_a_prior(folder):
    with pytest.raises(InputError, match=r"line 5: .*parameter 'a': a prior_mean needs prior_std"):
        load_study_of(folder, STUDY.replace("value: 1.0", "value: 1.0, prior_mean: 1.5"))


def test_errors_of_a_file_in_other_units(folder):
    """Readings in centimetres of a model in metres, with the covariance in square centimetres, beside a group without."""
    rows = [f"{float(X[i])!r},{100 * float(DATA[i])!r},{'well' if i < 8 else 'tap'}" for i in range(12)]
    (folder / "cm.csv").write_text("\n".join(["x,y,place", *rows]) + "\n")
    np.savetxt(folder / "errors.txt", 1e4 * ERRORS[:8, :8])
    entry = "{file: cm.csv, value: {column: y, units: cm}, columns: {x: {column: x, units: m}}, group: {column: place}, groups: {well: {covariance: errors.txt}, tap: {std: 20}}}"
    text = STUDY.replace("{file: early.csv, value: y, columns: {x: x}, std: 0.1}", entry)
    text = text.replace("value: 1.0}", "value: 1.0, units: m}")
    result = fitted(folder, text)
    whole = np.zeros((12, 12))
    whole[:8, :8], whole[8:, 8:] = ERRORS[:8, :8], 0.04 * np.eye(4)
    estimates, spread = gls(whole)
    np.testing.assert_allclose(result.evaluation.t, estimates, rtol=1e-7)
    np.testing.assert_allclose(result.statistics.covariance_t, spread, rtol=1e-6)
    assert (folder / "errors.txt").name in " ".join(load_study(folder / "second.yml").contents)


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("covariance: errors.txt, std: 0.1", "leave std out"),
        ("covariance: none.txt", "there is no such file"),
        ("covariance: errors.txt", "12 x 12, and the group has 6 rows"),
        ("covariance: errors.txt, group: {column: x}", "give each its own under groups"),
        ("covariance: errors.txt, loss: huber", "needs a std"),
    ],
)
def test_what_is_wrong_with_a_file_of_errors(folder, keys, what):
    np.savetxt(folder / "errors.txt", ERRORS)
    with pytest.raises(InputError) as error:
        load_study_of(folder, STUDY.replace("std: 0.1}", keys + "}"))
    assert what in str(error.value)


def test_pest_gets_a_prior_of_several_parameters_as_equations(tmp_path):
    parameters = [Parameter("a", 1.0), Parameter("b", 2.0, transform="log")]
    p = problem_from_function(parameters, lambda p: p["a"] + p["b"] * X, DATA, torch.full((12,), 10.0))
    prior = JointPrior(PRIOR.labels, PRIOR.mean, PRIOR.covariance, np.array([False, True]))
    result = calibrate(p.changed(joint_priors=[prior]), settings=KNOWN)
    write_pest_case(result, tmp_path / "case.pst")
    values = {label: float(value) for label, value in result.values.items()}
    total = 0.0
    for row in read_pst(tmp_path / "case.pst").prior_information:
        left, right = row.equation.replace("log(b)", str(np.log10(values["b"]))).split(" = ")
        left = left.replace("* a", f"* {values['a']}").replace("- ", "+ -")
        total += (
            row.weight
            * (sum(np.prod([float(x) for x in term.split(" * ")]) for term in left.split(" + ")) - float(right))
        ) ** 2
    priors = result.evaluation.residual[result.evaluation.data_rows :]
    assert total == pytest.approx(priors @ priors, rel=1e-9)
