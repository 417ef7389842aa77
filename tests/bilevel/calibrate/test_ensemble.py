"""Samples by randomised maximum likelihood and by the smoother: the closed form of a line, and each other on a curve."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from bilevel.calibrate import Noise, Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.settings import Ensemble, EnsembleMethod
from bilevel.calibrate.statistics.ensemble import ensemble
from bilevel.report import InputError

X = torch.linspace(0.0, 4.0, 9)
SIGMA = 0.1
LINE = 2.0 + 3.0 * X + SIGMA * torch.sin(37.0 * torch.arange(9.0))
KNOWN = Settings(noise=Noise.KNOWN, verify=False)
PRIORS = (
    Parameter("a", 0.0, prior_mean=1.0, prior_std=0.2),
    Parameter("b", 1.0, prior_mean=3.1, prior_std=0.05),
)


def sampled(parameters, function, data, asked, settings=KNOWN, weight=1 / SIGMA):
    problem = problem_from_function(parameters, function, data, weight=weight)
    result = calibrate(problem, settings=settings)
    return result, ensemble(problem, result.evaluation, asked, settings=settings)


@pytest.mark.parametrize(("method", "count"), [(EnsembleMethod.RML, 40), (EnsembleMethod.SMOOTHER, 400)])
def test_of_a_line_it_is_the_posterior(method, count):
    """Mean within four standard errors of it, std within four of its own: 1 / sqrt(2 n)."""
    result, found = sampled(PRIORS, lambda p: p["a"] + p["b"] * X, LINE, Ensemble(count, method))
    for estimate in result.estimates:
        mean, std, low, high = found.summary(estimate.label)
        assert abs(mean - estimate.value) < 4 * estimate.std / math.sqrt(count)
        assert abs(std / estimate.std - 1) < 4 / math.sqrt(2 * count)
        assert low < estimate.value < high
    linear = result.statistics.correlation[0, 1]
    assert np.corrcoef(found.values.T)[0, 1] == pytest.approx(linear, abs=0.2)
    assert found.failed == 0


def test_members_do_not_depend_on_their_number():
    few = sampled(PRIORS, lambda p: p["a"] + p["b"] * X, LINE, Ensemble(4))[1]
    more = sampled(PRIORS, lambda p: p["a"] + p["b"] * X, LINE, Ensemble(6))[1]
    np.testing.assert_array_equal(more.values[:4], few.values)


def test_an_estimated_noise_is_that_of_the_residuals():
    """Weights of 1 say nothing of the noise, so members scatter as the residuals do."""
    free = [Parameter("a", 0.0), Parameter("b", 1.0)]
    result, found = sampled(free, lambda p: p["a"] + p["b"] * X, LINE, Ensemble(30), Settings(verify=False), None)
    assert found.summary("b")[1] == pytest.approx(result.estimates[1].std, rel=0.5)


def test_both_agree_where_the_model_is_bent():
    free = [
        Parameter("level", 5.0, 3.0, 9.0, transform="log"),
        Parameter("rate", 0.7, 0.4, 1.2, transform="log"),
    ]
    data = 6 * torch.exp(-0.8 * X) + 0.05 * torch.sin(40.0 * X)

    def decay(p):
        return p["level"] * torch.exp(-p["rate"] * X)

    _, likelihood = sampled(free, decay, data, Ensemble(40))
    _, smoothed = sampled(free, decay, data, Ensemble(400, EnsembleMethod.SMOOTHER))
    for label in ("level", "rate"):
        (mean, std, *_), (other, spread, *_) = likelihood.summary(label), smoothed.summary(label)
        assert abs(mean - other) < 4 * std * math.sqrt(1 / 40 + 1 / 400)
        assert spread == pytest.approx(std, rel=0.4)


def test_a_smoother_needs_priors():
    with pytest.raises(InputError, match="parameter 'a': an ensemble smoother draws from a prior"):
        sampled([Parameter("a", 0.0)], lambda p: p["a"] + X, LINE, Ensemble(10, EnsembleMethod.SMOOTHER))


def test_a_study_asks_for_samples_and_resume_makes_what_is_left(study, no_pictures):
    study.edit("title: Decay", "title: Decay\nensemble: 10")
    ran = study.call("run")
    assert ran.code == 0, ran.err
    assert "10 samples by randomised maximum likelihood" in ran.out
    first = json.loads((study.results / "result.json").read_text())["ensemble"]
    assert (first["members"], first["failed"]) == (10, 0)
    samples = (study.results / "case.ensemble.csv").read_text()
    assert samples.splitlines()[0] == "amplitude,rate"
    kept = sorted((study.results / "checkpoint" / "tasks").iterdir())
    kept[0].unlink()
    assert study.call("resume").code == 0
    assert (study.results / "case.ensemble.csv").read_text() == samples


def test_too_few_samples_are_refused(study):
    study.edit("title: Decay", "title: Decay\nensemble: {count: 3}")
    ran = study.call("run")
    assert ran.code == 2
    assert "line 2: ensemble.count" in ran.err
