"""Noise and priors: which numbers are absolute, which are rescaled, and what of it is said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from bilevel.calibrate import Method, Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.settings import Noise
from bilevel.report import InputError

X = torch.linspace(1.0, 10.0, 40)
NOISE = torch.as_tensor(np.random.default_rng(3).normal(size=40))


@pytest.mark.parametrize("method", [Method.LEAST_SQUARES, Method.LBFGSB])
@pytest.mark.parametrize("weight", [None, 1e-2, 1e5])
def test_priors_are_absolute_whatever_the_residuals_are(method, weight):
    """Data determine a b = 6 to 1e-5; b is known from its prior alone, and a = 6 / b with it."""
    start = [Parameter("a", 1.0), Parameter("b", 1.5, prior_mean=2.0, prior_std=0.1)]
    problem = problem_from_function(start, lambda p: p["a"] * p["b"] * X, 6 * X + 1e-3 * NOISE, weight)
    result = calibrate(problem, settings=Settings(method=method))
    a, b = result.estimates
    assert (a.value, b.value) == pytest.approx((3.0, 2.0), rel=1e-4)
    assert (a.std, b.std) == pytest.approx((0.15, 0.10), rel=1e-3)


def test_data_outweigh_a_prior_as_their_noise_says():
    """Data of noise 1e-3 against a prior of 0.1: without knowing the noise, weights of 1 would have the prior win."""
    problem = problem_from_function([Parameter("a", 1.0, prior_mean=2.0, prior_std=0.1)], lambda p: p["a"] * X, 6 * X + 1e-3 * NOISE)  # fmt: skip
    (a,) = calibrate(problem).estimates
    sigma = float(np.std((6 * X + 1e-3 * NOISE - 6 * X).numpy()))
    assert a.value == pytest.approx(6.0, abs=1e-4)
    assert a.std == pytest.approx(sigma / float(X.norm()), rel=0.05)


def test_few_data_beside_priors_take_weights_for_sigma():
    start = [Parameter("a", 1.0, prior_mean=1.0, prior_std=1.0), Parameter("b", 1.0, prior_mean=1.0, prior_std=1.0)]
    problem = problem_from_function(start, lambda p: torch.stack([p["a"] + p["b"]]), torch.tensor([3.0]), 2.0)
    result = calibrate(problem)
    precision = np.eye(2) + 4 * np.ones((2, 2))
    np.testing.assert_allclose(result.statistics.covariance, np.linalg.inv(precision), rtol=1e-9)
    assert "the noise cannot be estimated; beside the priors, weights are taken for 1/sigma" in result.noise_sentence


def line(weight=None, noise=0.5):
    start = [Parameter("a", 0.0), Parameter("b", 1.0)]
    return problem_from_function(start, lambda p: p["a"] + p["b"] * X, 2 + 3 * X + noise * NOISE, weight)


def test_known_noise_without_a_sigma_is_an_error():
    with pytest.raises(InputError, match="no observation has a std"):
        calibrate(line(), settings=Settings(noise=Noise.KNOWN))


@pytest.mark.parametrize(
    ("sigma", "says"), [(0.5, ""), (0.05, "larger than chance allows"), (5.0, "smaller than chance allows")]
)
def test_reduced_chi_square_of_known_noise(sigma, says):
    result = calibrate(line(1 / sigma), settings=Settings(noise=Noise.KNOWN))
    assert result.statistics.chi_square == pytest.approx(result.phi / 38)
    assert result.noise_sentence.startswith(f"reduced chi-square {result.phi / 38:.3g} with 38 degrees of freedom")
    assert says in result.noise_sentence
    assert ("chance" in result.noise_sentence) == bool(says)


def test_std_given_and_noise_estimated_is_said(study, no_pictures):
    """The study has std: 2 cm."""
    outcome = study.call("run")
    result = json.loads((study.results / "result.json").read_text())
    variance = result["phi"] / 6
    assert result["noise"]["reduced_chi_square"] == pytest.approx(variance)
    assert (
        f"standard deviations are rescaled by {math.sqrt(variance):.3g} (reduced chi-square {variance:.3g})"
        in outcome.out
    )
    study.edit("    std: 2\n", "")
    assert "rescaled" not in study.call("run", "--force").out
    assert study.call("uncertainty", "--noise", "known").code == 2


def test_rmse_counts_what_is_fitted():
    data = 2 + 3 * X + 0.1 * NOISE
    data[-1] += 1e3
    weight = torch.ones(40)
    weight[-1] = 0.0
    problem = problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], lambda p: p["a"] + p["b"] * X, data, weight)  # fmt: skip
    result = calibrate(problem)
    expected = math.sqrt(result.phi / 39)
    assert result.groups[0].rmse == pytest.approx(expected)
    assert result.rmse == pytest.approx(expected)


def test_forecasts_have_the_intervals_of_linear_regression():
    weight = torch.ones(40)
    weight[30:] = 0.0
    result = calibrate(line(weight))
    design = np.stack([np.ones(40), X.numpy()], axis=1)
    covariance = np.linalg.inv(design[:30].T @ design[:30]) * result.phi / 28
    expected = np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design))
    np.testing.assert_allclose(result.forecasts.std, expected, rtol=1e-9)
    half = result.statistics.quantile * expected
    np.testing.assert_allclose(result.forecasts.upper95, result.evaluation.prediction + half, rtol=1e-12)


def test_a_forecast_of_what_data_leave_open_has_no_end_and_one_of_what_they_see_has():
    """Only a + b is known: a + b can be forecast, a - b cannot."""
    weight = torch.ones(40)
    weight[-2:] = 0.0

    def model(p):
        y = (p["a"] + p["b"]) * X
        return torch.cat([y[:-2], torch.stack([10 * (p["a"] + p["b"]), p["a"] - p["b"]])])

    problem = problem_from_function([Parameter("a", 1.0), Parameter("b", 2.0)], model, 5 * X + 0.1 * NOISE, weight)
    std = calibrate(problem).forecasts.std
    assert math.isfinite(std[-2])
    assert std[-2] == pytest.approx(10 * std[0] / float(X[0]), rel=1e-9)
    assert std[-1] == math.inf


def test_forecasts_are_written(study, no_pictures):
    study.edit("    std: 2\n", "    std: 2\n    groups: {b: {weight: 0}}\n")
    assert study.call("run").code == 0
    rows = np.genfromtxt(study.results / "case.rei.csv", delimiter=",", names=True, dtype=None, encoding=None)
    assert rows["weight"].tolist()[4:] == [0.0] * 4
    assert (rows["std"] > 0).all()
    assert rows["std"][0] > rows["std"][7]  # the amplitude is what is known least


@pytest.mark.slow
def test_verdicts_do_not_depend_on_the_start():
    """A sum of exponentials of which data of this noise see one and a half; fifty starts, one verdict."""
    data = 2 * torch.exp(-0.3 * X) + 1.0 + 0.05 * NOISE
    rng = np.random.default_rng(7)
    verdicts = set()
    for _ in range(50):
        a, b, c, d = rng.uniform(0.2, 5.0), rng.uniform(0.05, 1.0), rng.uniform(-3.0, 3.0), rng.uniform(-100.0, 100.0)
        problem = problem_from_function(
            [Parameter("a", a), Parameter("b", b, lower=0.04), Parameter("c", c), Parameter("d", d)],
            lambda p: p["a"] * torch.exp(-p["b"] * X) + p["c"] + p["d"] * 1e-6 * X,
            data,
        )
        result = calibrate(problem, settings=Settings(verify=False))
        verdicts.add(tuple(sorted(result.identifiability.sentences.items())))
    assert len(verdicts) == 1
