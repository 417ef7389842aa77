"""Standard deviations, intervals, priors and identifiability against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.function_problem import problem_from_function
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.settings import Method, Noise, Settings
from bilevel.report import BilevelError, ConvergenceError
from bilevel.torch_internals import is_transformed

X = torch.linspace(0.0, 4.0, 9)
NOISE = 0.1 * torch.sin(37.0 * torch.arange(9.0))
LINE = 2.0 + 3.0 * X + NOISE


def line(p):
    return p["a"] + p["b"] * X


def test_straight_line_is_ordinary_least_squares():
    result = calibrate(problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], line, LINE))
    fit = stats.linregress(X.numpy(), LINE.numpy())
    a, b = result.estimates
    assert (a.value, b.value) == pytest.approx((fit.intercept, fit.slope), rel=1e-12)
    assert (a.std, b.std) == pytest.approx((fit.intercept_stderr, fit.stderr), rel=1e-11)
    quantile = stats.t.ppf(0.975, 7)
    assert (b.lower95, b.upper95) == pytest.approx(
        (fit.slope - quantile * fit.stderr, fit.slope + quantile * fit.stderr), rel=1e-11
    )
    assert result.statistics.correlation[0, 1] == pytest.approx(-float(X.mean() / torch.sqrt((X**2).mean())), rel=1e-11)


def test_known_noise_takes_the_weights_at_their_word():
    problem = problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], line, LINE, weight=1 / 0.25)
    result = calibrate(problem, settings=Settings(noise=Noise.KNOWN))
    design = np.stack([np.ones(9), X.numpy()], axis=1)
    expected = 0.25 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    np.testing.assert_allclose(result.statistics.std, expected, rtol=1e-11)


def test_delta_method_through_the_logarithm():
    plain = calibrate(problem_from_function([Parameter("a", 1.0), Parameter("b", 1.0)], line, LINE))
    logs = calibrate(
        problem_from_function([Parameter("a", 1.0, transform="log"), Parameter("b", 1.0, transform="log")], line, LINE)
    )
    np.testing.assert_allclose(logs.statistics.std, plain.statistics.std, rtol=1e-6)
    b = logs.estimates[1]
    assert b.lower95 * b.upper95 == pytest.approx(b.value**2, rel=1e-9)


def test_parameters_in_proportion_share_relative_standard_deviation():
    result = calibrate(problem_from_function([Parameter("a", 2.0), Parameter("b", expr="1.5 * a")], line, LINE))
    a, b = result.estimates
    assert b.value / a.value == pytest.approx(1.5)
    assert b.std / a.std == pytest.approx(1.5)


def test_prior_is_one_more_observation():
    """Mean of nine readings and a prior worth four of them."""
    result = calibrate(
        problem_from_function(
            [Parameter("a", 1.0, transform="log", prior_mean=5.0, prior_std=0.5)], lambda p: p["a"].expand(9), LINE, 1.0
        ),
        settings=Settings(noise=Noise.KNOWN),
    )
    assert result.estimates[0].value == pytest.approx((float(LINE.sum()) + 4 * 5.0) / 13, rel=1e-9)
    assert result.estimates[0].std == pytest.approx(1 / math.sqrt(13), rel=1e-6)
    assert result.prior_phi == pytest.approx(4 * (result.estimates[0].value - 5.0) ** 2)


def test_weight_zero_is_predicted_but_not_fitted():
    data = LINE.clone()
    data[4] = 1000.0
    weight = torch.ones(9)
    weight[4] = 0.0
    result = calibrate(problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], line, data, weight))
    kept = np.delete(np.arange(9), 4)
    fit = stats.linregress(X.numpy()[kept], LINE.numpy()[kept])
    assert result.estimates[1].value == pytest.approx(fit.slope, rel=1e-12)
    assert result.evaluation.prediction[4] == pytest.approx(fit.intercept + fit.slope * float(X[4]))
    assert result.groups[0].fitted == 8


def test_parameter_at_its_bound_is_held_and_the_rest_refitted():
    result = calibrate(problem_from_function([Parameter("a", 0.0, upper=1.0), Parameter("b", 1.0)], line, LINE))
    a, b = result.estimates
    assert a.value == 1.0
    assert a.at_bound == "upper"
    assert math.isnan(a.std)
    through = float(((LINE - 1.0) * X).sum() / (X**2).sum())
    assert b.value == pytest.approx(through, rel=1e-10)
    assert b.std == pytest.approx(math.sqrt(result.phi / 8 / float((X**2).sum())), rel=1e-9)
    assert "a is not identifiable: it ran to its upper bound 1" in result.identifiability.sentences["a"]


def test_only_the_sum_is_determined():
    problem = problem_from_function([Parameter(n, 1.0) for n in "abc"], lambda p: (p["a"] + p["b"]) * X + p["c"], LINE)
    result = calibrate(problem)
    assert set(result.identifiability.sentences) == {"a", "b"}
    assert (
        "a is not identifiable: the data determine only a combination of it and b"
        in result.identifiability.sentences["a"]
    )
    assert result.estimates[0].std == math.inf
    assert result.estimates[2].std == pytest.approx(
        stats.linregress(X.numpy(), LINE.numpy()).intercept_stderr, rel=1e-6
    )


def test_no_observation_depends_on_it():
    result = calibrate(
        problem_from_function([Parameter("a", 1.0), Parameter("z", 1.0)], lambda p: p["a"] * X + 0 * p["z"], LINE)
    )
    assert result.identifiability.sentences == {"z": "z is not identifiable: no fitted observation depends on it"}


def test_leaky_term_without_information_runs_to_its_bound():
    """As with the aquitard of a pumping test whose wells do not feel it: s = 1 - exp(-x / c) / 1e6."""
    truth = LINE + 1e-3 * X / 1e4
    problem = problem_from_function(
        [Parameter("a", 1.0), Parameter("b", 1.0), Parameter("c", 10.0, 1.0, 1e6, "log", units="d")],
        lambda p: p["a"] + p["b"] * X + X**2 / p["c"],
        truth - 0.02 * X**2,
    )
    result = calibrate(problem)
    sentence = result.identifiability.sentences["c"]
    assert sentence.startswith("c is not identifiable: it ran to its upper bound 1e+06 d")
    assert result.estimates[2].at_bound == "upper"


def test_offset_near_zero_is_identifiable():
    result = calibrate(
        problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], line, LINE - float(LINE.mean()))
    )
    assert result.identifiability.sentences == {}


def test_noptmax_zero_and_minus_one():
    problem = problem_from_function([Parameter("a", 1.0), Parameter("b", 2.0)], line, LINE)
    once = calibrate(problem, settings=Settings(noptmax=0))
    assert (once.evaluations, once.statistics, once.values) == (1, None, {"a": 1.0, "b": 2.0})
    linear = calibrate(problem, settings=Settings(noptmax=-1))
    assert linear.values == {"a": 1.0, "b": 2.0}
    design = np.stack([np.ones(9), X.numpy()], axis=1)
    expected = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * linear.phi / 7)
    np.testing.assert_allclose(linear.statistics.std, expected, rtol=1e-12)


def test_not_converged_raises_unless_told_otherwise():
    problem = problem_from_function([Parameter("a", 1.0)], lambda p: torch.exp(p["a"] * X), torch.exp(2.3 * X))
    with pytest.raises(ConvergenceError, match="NOT CONVERGED after 1 iterations"):
        calibrate(problem, settings=Settings(noptmax=1))
    assert not calibrate(problem, settings=Settings(noptmax=1), on_fail="ignore").converged


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
def test_failed_trial_points_are_stepped_back_from_and_told(method):
    """The model fails beyond a = 2.5, and the first full step from 0.1 goes there."""

    def fragile(p):
        if float(p["a"].detach() if not is_transformed(p["a"]) else VALUE[0]) > 2.5:
            raise BilevelError("the aquifer ran dry")
        return torch.log(p["a"]) * torch.ones(9)

    problem = problem_from_function([Parameter("a", 0.1)], fragile, torch.full((9,), math.log(2.0)))
    evaluate = problem.evaluate

    def told(t, with_jacobian=True):
        VALUE[0] = float(t[0])
        return evaluate(t, with_jacobian)

    problem.evaluate = told
    result = calibrate(problem, settings=Settings(method=method, verify=False))
    assert result.values["a"] == pytest.approx(2.0, rel=1e-5)


VALUE = [0.0]


def test_exact_data_converge_although_no_noise_is_left():
    result = calibrate(
        problem_from_function(
            [Parameter("a", 0.5), Parameter("b", 1.0)], lambda p: p["a"] * torch.exp(-p["b"] * X), 2 * torch.exp(-3 * X)
        )
    )
    assert result.converged
    assert [result.values["a"], result.values["b"]] == pytest.approx([2.0, 3.0], rel=1e-9)
