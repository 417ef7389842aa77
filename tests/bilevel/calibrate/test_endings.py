"""How calibrations end: converged means one thing, and what is not converged says why."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from bilevel.calibrate import CalibrationResult, Method, Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.fit.multistart import multistart
from bilevel.calibrate.linearisation import Linearisation
from bilevel.calibrate.settings import Starts

X = torch.linspace(0.0, 10.0, 40)
NOISE = torch.as_tensor(np.random.default_rng(0).normal(size=40))


def decay(p):
    return p["a"] * torch.exp(-p["b"] * X) + p["c"]


def far_decay():
    """Starts five orders of magnitude of phi from the minimum."""
    start = [Parameter("a", 5e3), Parameter("b", 0.5, transform="log"), Parameter("c", 1.0)]
    return problem_from_function(start, decay, 1e4 * torch.exp(-0.3 * X) + 5 + 0.01 * NOISE, 100.0)


def offset(result: CalibrationResult) -> float:
    return Linearisation(result.evaluation, result.problem.parameters).offset


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_converged_means_the_relative_offset_for_every_method(method, tolerance):
    result = calibrate(far_decay(), settings=Settings(method=method, tolerance=tolerance))
    assert result.phi < 40.0
    assert result.values["b"] == pytest.approx(0.3, rel=1e-5)
    assert offset(result) <= tolerance
    assert float(re.findall(r"relative offset (\S+)\)", result.status)[0]) <= tolerance


def test_the_tolerance_stops_the_loop():
    """A large residual: Gauss-Newton converges linearly here, so every digit costs iterations."""
    data = torch.exp(0.3 * X) + 3 * torch.sin(3 * X)
    start = [Parameter("a", 1.0), Parameter("b", 0.05)]
    problem = problem_from_function(start, lambda p: p["a"] * torch.exp(p["b"] * X), data)
    counts = [len(calibrate(problem, settings=Settings(tolerance=t)).iterations) for t in (1e-1, 1e-4, 1e-9)]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("start", [1.0, 5.0])
def test_iterations_do_not_depend_on_the_scale_of_weights(method, start):
    """From log parameters at 0 as from elsewhere; the parameters agree to a millionth of a standard deviation."""
    found = {}
    for weight in (1e-3, 1.0, 1e3, 1e6):
        problem = problem_from_function(
            [Parameter("a", start, transform="log"), Parameter("b", 1.0, transform="log")],
            lambda p: 50 * p["a"] * torch.exp(-p["b"] * X),
            200 * torch.exp(-0.2 * X) + 0.01 * NOISE,
            weight,
        )
        found[weight] = calibrate(problem, settings=Settings(method=method, verify=False))
    one = found[1.0]
    for result in found.values():
        assert abs(len(result.iterations) - len(one.iterations)) <= 1
        for e, reference in zip(result.estimates, one.estimates, strict=True):
            assert abs(e.value - reference.value) <= 1e-6 * reference.std
            assert e.std == pytest.approx(reference.std, rel=1e-4)


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_exact_data_converge_and_are_not_called_systematic(method, scale):
    problem = problem_from_function(
        [Parameter("a", 0.5 * scale), Parameter("b", 0.1)],
        lambda p: scale + p["a"] * torch.exp(-p["b"] * X),
        scale + scale * torch.exp(-0.3 * X),
    )
    result = calibrate(problem, settings=Settings(method=method))
    assert result.converged
    assert result.values == pytest.approx({"a": scale, "b": 0.3}, rel=1e-9)
    assert not any("not random" in note for note in result.notes)


def test_a_parameter_that_runs_away_is_named_and_the_rest_is_usable():
    """No finite c is best: the curvature of the data has the other sign."""
    data = 2 + 3 * X - 0.01 * X**2 + 0.01 * NOISE
    start = [Parameter("a", 1.0), Parameter("b", 1.0), Parameter("c", 10.0, transform="log")]
    problem = problem_from_function(start, lambda p: p["a"] + p["b"] * X + X**2 / p["c"], data)
    result = calibrate(problem, on_fail="ignore")
    assert not result.converged
    assert "ran away: c (to " in result.status
    assert "give bounds" in result.status
    b, a = np.polyfit(X.numpy(), data.numpy(), 1)
    assert result.values["a"] == pytest.approx(a, rel=1e-6)
    assert result.values["b"] == pytest.approx(b, rel=1e-6)
    assert result.values["c"] < 1e14
    assert "c" in result.identifiability.sentences


def test_a_fit_does_not_fly_to_where_nothing_depends_on_anything():
    """From 10^6 times too much, exp(-1000) = 0 is a better fit than the start, and every derivative is zero there."""
    data = 3 * torch.exp(-0.2 * X) + 0.01 * NOISE
    problem = problem_from_function(
        [Parameter("a", 1e6), Parameter("b", 1e-3)], lambda p: p["a"] * torch.exp(-p["b"] * X**2), data
    )
    result = calibrate(problem, on_fail="ignore", settings=Settings(verify=False))
    assert result.evaluation.jacobian is not None
    assert (np.abs(result.evaluation.jacobian).max(axis=0) > 0).all()
    assert result.converged or "ran away" in result.status


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
def test_any_exception_at_a_trial_point_is_a_step_too_far(method):
    calls = []

    def fragile(p):
        y = torch.log(p["a"]) * torch.ones(9)
        if calls and not bool(torch.isfinite(PROBE[0])):
            raise ZeroDivisionError("a thing of the user's own")
        calls.append(1)
        return y

    problem = problem_from_function([Parameter("a", 0.1)], fragile, torch.full((9,), float(np.log(2.0))))
    evaluate = problem.evaluate

    def told(t, with_jacobian=True):
        PROBE[0] = torch.tensor(np.nan if t[0] > 2.5 else 0.0)
        return evaluate(t, with_jacobian)

    problem.evaluate = told
    result = calibrate(problem, settings=Settings(method=method, verify=False))
    assert result.values["a"] == pytest.approx(2.0, rel=1e-6)
    if method is Method.LBFGSB:
        assert any("ZeroDivisionError: a thing of the user's own" in note for note in result.notes)


PROBE = [torch.tensor(0.0)]


def test_at_the_start_a_user_s_exception_is_raised():
    def broken(p):
        raise ZeroDivisionError("at once")

    with pytest.raises(ZeroDivisionError, match="at once"):
        calibrate(problem_from_function([Parameter("a", 1.0)], broken, X))


def fit(function, data, *start, **settings):
    return calibrate(
        problem_from_function(list(start), function, data),
        settings=Settings(verify=False, **settings),
        on_fail="ignore",
    )


def test_not_converged_names_its_cause():
    a, b = Parameter("a", 1.0), Parameter("b", 1.0)
    data = 3 * torch.exp(-0.2 * X) + 0.01 * NOISE

    def single(p):
        return (p["a"] * torch.exp(-p["b"] * X)).float().double()

    noisy = fit(single, data, a, b).status
    assert 1e-10 < float(re.findall(r"carry noise of (\S+) of their size, as single precision", noisy)[0]) < 1e-7
    kink = fit(lambda p: (torch.abs(p["a"] - 2) + 1) * X, 0.5 * X + 0.01 * NOISE, a)
    assert "not smooth there (a kink or a jump" in kink.status
    few = fit(lambda p: p["a"] * torch.exp(-p["b"] * X), data, a, b, noptmax=2)
    assert "the limit of 2 iterations" in few.status
    assert "raise noptmax and resume" in few.status


def test_predictions_in_single_precision_are_told():
    x = X.float()
    result = fit(lambda p: p["a"] * x, 2 * X + 0.01 * NOISE, Parameter("a", 1.0))
    assert any("single precision" in note for note in result.notes)


def test_a_curved_valley_costs_few_steps():
    """Rosenbrock's valley, and Powell's badly scaled function (More, Garbow & Hillstrom 1981)."""
    valley = problem_from_function(
        [Parameter("a", -1.2), Parameter("b", 1.0)],
        lambda p: torch.stack([10 * (p["b"] - p["a"] ** 2), 1 - p["a"]]),
        torch.zeros(2),
    )
    result = calibrate(valley)
    assert result.values == pytest.approx({"a": 1.0, "b": 1.0}, rel=1e-8)
    assert result.evaluations <= 30
    powell = problem_from_function(
        [Parameter("a", 0.001), Parameter("b", 1.0)],
        lambda p: torch.stack([1e4 * p["a"] * p["b"], torch.exp(-p["a"]) + torch.exp(-p["b"])]),
        torch.tensor([1.0, 1.0001]),
    )
    assert calibrate(powell).values == pytest.approx({"a": 1.098159e-5, "b": 9.106146}, rel=1e-5)


def test_steps_along_what_data_cannot_see_are_zero():
    """a + b only: the difference of the start is kept, through an inner solve as well."""
    data = 0.17 * X + 1e-3 * NOISE
    result = calibrate(
        problem_from_function([Parameter("a", 0.2), Parameter("b", 0.01)], lambda p: (p["a"] + p["b"]) * X, data)
    )
    assert result.values["a"] - result.values["b"] == pytest.approx(0.19, abs=1e-9)
    assert set(result.identifiability.sentences) == {"a", "b"}
    assert result.jacobian_error < 1e-8


def test_every_start_that_converged_is_below_the_tolerance():
    start = [Parameter("a", 5.0, 0.1, 50.0), Parameter("b", 0.5, 0.01, 2.0), Parameter("c", 0.0, -5.0, 5.0)]
    problem = problem_from_function(start, decay, 7 * torch.exp(-0.3 * X) + 1 + 0.01 * NOISE)
    for outcome in multistart(problem, Starts(8), settings=Settings(tolerance=1e-5)):
        if outcome.converged:
            evaluation = problem.evaluate(
                np.array([float(outcome.values[label]) for label in problem.parameters.entry_labels])
            )
            assert Linearisation(evaluation, problem.parameters).offset <= 1e-5
