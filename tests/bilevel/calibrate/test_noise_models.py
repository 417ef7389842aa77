"""Noise by group: losses, logarithms, censored readings, correlated errors; estimates and their standard deviations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from bilevel.calibrate import Method, Parameter, Settings, calibrate, load_study
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.misfit import HUBER, Censored, GroupNoise
from bilevel.calibrate.observations import ObservationTable, Sigma
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Loss, Noise
from bilevel.calibrate.statistics.correlated import _Errors, _whitened

N = 60
X = torch.linspace(0.0, 1.0, N)
DICE = np.random.default_rng(11)
LINE = 2 + 3 * X + 0.1 * torch.as_tensor(DICE.normal(size=N))


def problem(value, noise=GroupNoise(), censored=(), std=0.1, model=None, x=X, group=None):  # noqa: B008 - frozen
    group = group or ("data",) * len(value)
    table = ObservationTable(
        torch.as_tensor(value),
        torch.full((len(value),), 1 / std, dtype=torch.float64),
        group,
        columns={"x": torch.as_tensor(x)},
        sigma=Sigma.STD,
        noise=dict.fromkeys(dict.fromkeys(group), noise),
        censored=tuple(censored),
    )
    model = model or (lambda p: p["a"] + p["b"] * x)
    return CalibrationProblem(
        [Parameter("a", 1.0), Parameter("b", 1.0)], [Experiment("data", FunctionModel(table, model), table)]
    )


RHO = {
    Loss.NORMAL: lambda z: z**2,
    Loss.SOFT_L1: lambda z: 2 * (np.sqrt(1 + z**2) - 1),
    Loss.STUDENT_T: lambda z: 5 * np.log1p(z**2 / 4),
    Loss.HUBER: lambda z: np.where(np.abs(z) <= HUBER, z**2, 2 * HUBER * np.abs(z) - HUBER**2),
}


@pytest.mark.parametrize("loss", Loss)
def test_phi_is_the_sum_of_the_losses_and_its_derivatives_are_right(loss):
    data = LINE.clone()
    data[::7] += 1.0
    p = problem(data, GroupNoise(loss))
    t = np.array([1.9, 3.2])
    z = (t[0] + t[1] * X - data).numpy() / 0.1
    evaluation = p.evaluate(t)
    assert evaluation.phi == pytest.approx(RHO[loss](z).sum(), rel=1e-13)
    numerical = optimize.approx_fprime(t, lambda t: p.evaluate(t).phi, 1e-7)
    np.testing.assert_allclose(evaluation.gradient, numerical, rtol=1e-5)
    np.testing.assert_allclose(p.evaluate(t, with_jacobian=False).gradient, evaluation.gradient, rtol=1e-12)


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("loss", [Loss.SOFT_L1, Loss.HUBER, Loss.STUDENT_T])
def test_a_robust_fit_is_the_minimum_and_outliers_hardly_move_it(loss, method):
    data = LINE.clone()
    data[::7] += 20.0
    result = calibrate(problem(data, GroupNoise(loss)), settings=Settings(method=method))
    expected = optimize.minimize(
        lambda t: RHO[loss]((t[0] + t[1] * X - data).numpy() / 0.1).sum(), [2, 3], method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000},
    ).x  # fmt: skip
    np.testing.assert_allclose(list(result.values.values()), expected, atol=1e-6)
    assert abs(result.values["a"] - 2) < 0.15
    plain = calibrate(problem(data))
    assert result.statistics.std[0] < 0.2 * plain.statistics.std[0]


def test_a_loss_under_normal_noise_costs_what_theory_says():
    """95 % efficiency of Huber's loss at 1.345: std^2 / std_normal^2 = 1 / 0.95, by many readings."""
    n = 8000
    x = torch.linspace(0, 1, n)
    data = 2 + 3 * x + 0.1 * torch.as_tensor(np.random.default_rng(3).normal(size=n))
    known = Settings(noise=Noise.KNOWN, verify=False)
    robust = calibrate(problem(data, GroupNoise(Loss.HUBER), x=x), settings=known).statistics.std
    plain = calibrate(problem(data, x=x), settings=known).statistics.std
    np.testing.assert_allclose((plain / robust) ** 2, 0.95, atol=0.02)


def test_censored_readings_are_tobit_regression():
    limit = 3.0
    below = (limit > LINE).numpy()
    data = torch.clamp(LINE, min=limit)
    p = problem(data, censored=[Censored.BELOW if yes else Censored.NO for yes in below])
    result = calibrate(p, settings=Settings(noise=Noise.KNOWN))

    def minus_log_likelihood(t):
        z = (t[0] + t[1] * X.numpy() - data.numpy()) / 0.1
        return 0.5 * np.sum(z[~below] ** 2) - np.sum(stats.norm.logcdf(-z[below]))

    best = optimize.minimize(minus_log_likelihood, [2, 3], method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(list(result.values.values()), best.x, rtol=1e-6)
    steps = 1e-4 * np.eye(2)
    hessian = np.array(
        [[(minus_log_likelihood(best.x + a + b) - minus_log_likelihood(best.x + a - b)
           - minus_log_likelihood(best.x - a + b) + minus_log_likelihood(best.x - a - b)) / 4e-8 for b in steps] for a in steps]
    )  # fmt: skip
    np.testing.assert_allclose(result.statistics.covariance, np.linalg.inv(hessian), rtol=1e-4)
    assert result.groups[0].measured == int((~below).sum())
    assert np.isfinite(result.forecasts.std).all()


def test_censored_from_both_sides_and_far_from_the_limit():
    """Readings that are far on the allowed side say nothing, in value and in derivative; on the other they pull like a parabola."""
    value = torch.tensor([0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    limits = [Censored.BELOW, Censored.ABOVE, Censored.BELOW, Censored.ABOVE]
    prediction = torch.tensor([-100.0, 100.0, 3.0, -3.0], dtype=torch.float64)
    misfit = problem(value, censored=limits, std=1.0, x=torch.zeros(4)).misfit
    residual, slope = misfit.residual(prediction), misfit.slope(prediction)
    assert residual[:2].abs().max() < 1e-100
    assert slope[:2].abs().max() == 0
    share = math.sqrt(-2 * stats.norm.logcdf(-3))
    np.testing.assert_allclose(residual[2:], [share, -share], rtol=1e-12)
    h = 1e-6
    numerical = (misfit.residual(prediction + h) - misfit.residual(prediction - h)) / (2 * h)
    np.testing.assert_allclose(slope[2:], numerical[2:], rtol=1e-8)


def test_logarithms_make_a_line_of_an_exponential():
    data = torch.exp(LINE)
    exponential = problem(data, GroupNoise(logarithmic=True), model=lambda p: torch.exp(p["a"] + p["b"] * X))
    result, line = calibrate(exponential), calibrate(problem(LINE))
    np.testing.assert_allclose(list(result.values.values()), list(line.values.values()), rtol=1e-8)
    np.testing.assert_allclose(result.statistics.covariance, line.statistics.covariance, rtol=1e-8)
    np.testing.assert_allclose(result.forecasts.std / result.evaluation.prediction, line.forecasts.std, rtol=1e-7)
    assert result.jacobian_error < 1e-3


def markov(n, rho, dice):
    noise = dice.normal(size=n)
    for k in range(1, n):
        noise[k] = rho * noise[k - 1] + math.sqrt(1 - rho**2) * noise[k]
    return torch.as_tensor(noise)


def test_the_covariance_of_correlated_errors_is_that_of_the_dense_matrix():
    dice = np.random.default_rng(0)
    places = np.cumsum(dice.uniform(0.5, 2.0, 12))
    steps = np.exp(-np.diff(places))[None] ** np.array([[1.0], [0.3]])
    errors = _Errors(np.arange(12), np.array([0.25, 0.75]), np.array([2.0, 3.0]), steps)
    distance = np.abs(places[:, None] - places)
    dense = 0.5 * np.exp(-distance) + 2.25 * np.exp(-0.3 * distance)
    influence = dice.normal(size=(3, 12))
    np.testing.assert_allclose(errors.between(influence), influence @ dense @ influence.T, rtol=1e-12)
    root = np.linalg.cholesky(np.exp(-distance))
    np.testing.assert_allclose(_whitened(influence.T, steps[0]), np.linalg.solve(root, influence.T), rtol=1e-10)


def test_correlated_errors_are_told_and_independent_ones_are_not():
    dice = np.random.default_rng(2)
    correlated = calibrate(problem(2 + 3 * X + 0.1 * markov(N, 0.9, dice)))
    plain = calibrate(problem(LINE))
    assert plain.statistics.correlated is None
    (group,) = correlated.statistics.correlated.groups
    assert 0.6 < group.neighbours < 0.99
    assert group.effective < 20
    assert (correlated.statistics.correlated.std > 1.5 * correlated.statistics.std).all()
    assert "those for correlated errors stand beside them" in " ".join(correlated.notes)


def test_correlation_along_a_column_does_not_depend_on_the_order_of_rows():
    dice = np.random.default_rng(4)
    data = 2 + 3 * X + 0.1 * markov(N, 0.8, dice)
    shuffled = torch.as_tensor(dice.permutation(N))
    asked = GroupNoise(correlated="x")
    first = calibrate(problem(data, asked)).statistics.correlated
    x = X[shuffled]
    second = calibrate(problem(data[shuffled], asked, x=x)).statistics.correlated
    np.testing.assert_allclose(first.std, second.std, rtol=1e-6)


def covered(make, truth, sets, pick=lambda s: (s.lower95, s.upper95), noise=Noise.ESTIMATED):
    """Share of the sets whose interval has the truth, by parameter."""
    dice, inside = np.random.default_rng(1), []
    for _ in range(sets):
        found = calibrate(make(dice), settings=Settings(verify=False, noise=noise)).statistics
        low, high = pick(found)
        inside.append((low <= truth) & (truth <= high))
    return np.mean(inside, axis=0)


TRUTH = np.array([2.0, 3.0])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_coverage_under_correlated_errors():
    def make(dice):
        x = torch.linspace(0, 1, 200)
        return problem(2 + 3 * x + 0.1 * markov(200, 0.9, dice), GroupNoise(correlated=""), x=x)

    share = covered(make, TRUTH, 500, lambda s: (s.correlated.lower95, s.correlated.upper95))
    plain = covered(make, TRUTH, 500)
    print(f"coverage with correlated errors {share}, by the plain formula {plain}")
    assert (plain < 0.6).all()
    assert ((share > 0.93) & (share < 0.97)).all()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("loss", [Loss.HUBER, Loss.SOFT_L1, Loss.STUDENT_T])
def test_coverage_under_outliers(loss):
    def make(dice):
        noise = dice.normal(size=N) * np.where(dice.random(N) < 0.1, 10.0, 1.0)
        return problem(2 + 3 * X + 0.1 * torch.as_tensor(noise), GroupNoise(loss))

    share = covered(make, TRUTH, 2000)  # 500 sets scatter by 1 %, as much as lies between truth and limit
    print(f"coverage under outliers, {loss.value}: {share}")
    assert ((share > 0.93) & (share < 0.97)).all()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_coverage_of_censored_readings():
    def make(dice):
        data = 2 + 3 * X + 0.1 * torch.as_tensor(dice.normal(size=N))
        below = data < 3.0
        limits = [Censored.BELOW if yes else Censored.NO for yes in below]
        return problem(data.clamp(min=3.0), censored=limits)

    share = covered(make, TRUTH, 500, noise=Noise.KNOWN)
    print(f"coverage of censored readings: {share}")
    assert ((share > 0.93) & (share < 0.97)).all()


def test_in_a_study(study, no_pictures):
    study.edit(
        "    std: 2\n",
        "    std: {relative: 0.05, floor: 3}\n    groups: {b: {std: 0.1, logarithmic: true, loss: huber}}\n",
    )
    table = load_study(study.path).problem.experiments[0].observations
    np.testing.assert_allclose(table.weight[:2], 100 / np.hypot(0.05 * np.array([203, 158]), 3))
    np.testing.assert_allclose(table.weight[4:], 10)
    assert table.noise["b"] == GroupNoise(Loss.HUBER, True)
    assert study.call("run").code == 0
    rows = np.genfromtxt(study.results / "case.rei.csv", delimiter=",", names=True, dtype=None, encoding=None)
    np.testing.assert_allclose(rows["weight"][4:], 10)  # of logarithms, whatever the units
    np.testing.assert_allclose(rows["weight"][0], 1 / np.hypot(0.05 * 203, 3))


CASES = {
    "a loss without a std": ("std: 2", "loss: huber", "loss huber needs a std"),
    "an unknown loss": ("std: 2", "std: 2\n    loss: l1", "'normal', 'soft_l1', 'huber' or 'student_t'"),
    "a floor as weight": ("std: 2", "weight: {floor: 1}", "make a std, no weight"),
    "a negative error": ("std: 2", "std: {relative: -1}", "greater than or equal to 0"),
    "no error at all": ("std: 2", "std: {relative: 0}", "expected a positive standard deviation, got 0"),
    "a relative logarithm": ("std: 2", "std: {relative: 0.1}\n    logarithmic: true", "a relative error is one already"),
    "correlated along nothing": ("std: 2", "std: 2\n    correlated: tiem", "there is no column 'tiem' of numbers; did you mean 'time'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(study, case):
    old, new, says = CASES[case]
    study.edit(old, new)
    outcome = study.call("check")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "study.yml, line" in outcome.err
    assert says in outcome.err


def test_what_has_no_logarithm_and_equal_places_are_refused(study):
    study.edit("1.5,a,98", "1,a,-98", "data.csv")
    study.edit("std: 2", "std: 2\n    correlated: time")
    assert "lines 5 and 6 of group 'a' have the same 'time'" in study.call("check").err
    study.edit("correlated: time", "logarithmic: true")
    assert "data.csv, line 6: -98 has no logarithm" in study.call("check").err
