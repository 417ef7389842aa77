"""Samples by randomised maximum likelihood and by the smoother: the closed form of a line, and each other on a curve."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from bilevel.calibrate import Noise, Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.settings import Ensemble, EnsembleMethod
from bilevel.calibrate.statistics.ensemble import ensemble
from bilevel.calibrate.statistics.markov_chains import CHAINS, WARM_UP, effective_samples, split_r_hat
from bilevel.report import InputError

X = torch.linspace(0.0, 4.0, 9)
SIGMA = 0.1
LINE = 2.0 + 3.0 * X + SIGMA * torch.sin(37.0 * torch.arange(9.0))
KNOWN = Settings(noise=Noise.KNOWN, verify=False)
PRIORS = (
    Parameter("a", 0.0, prior_mean=1.9, prior_std=0.2),
    Parameter("b", 1.0, prior_mean=3.05, prior_std=0.05),
)


def sampled(parameters, function, data, asked, settings=KNOWN, weight=1 / SIGMA):
    problem = problem_from_function(parameters, function, data, weight=weight)
    result = calibrate(problem, settings=settings)
    return result, ensemble(problem, result.evaluation, asked, settings=settings)


@pytest.mark.parametrize(("method", "count"), [(EnsembleMethod.RML, 40), (EnsembleMethod.SMOOTHER, 150)])
def test_of_a_line_it_is_the_posterior(method, count):
    """Mean within four standard errors of it, std within four of its own: 1 / sqrt(2 n).

    Readings and priors agree; far from its prior a smoother errs by more, with its covariances.
    """
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
    _, smoothed = sampled(free, decay, data, Ensemble(150, EnsembleMethod.SMOOTHER))
    for label in ("level", "rate"):
        (mean, std, *_), (other, spread, *_) = likelihood.summary(label), smoothed.summary(label)
        assert abs(mean - other) < 4 * std * math.sqrt(1 / 40 + 1 / 150)
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


def test_r_hat_and_effective_samples_of_chains_that_are_known():
    """Autoregressive chains are worth (1 - r) / (1 + r) of their samples; chains at different places do not agree."""
    generator, r = np.random.default_rng(0), 0.8
    chains = generator.normal(size=(4, 5000, 2))
    for i in range(1, 5000):
        chains[:, i, 1] = r * chains[:, i - 1, 1] + math.sqrt(1 - r**2) * chains[:, i, 1]
    effective = effective_samples(chains)
    assert effective[0] == pytest.approx(20000, rel=0.1)
    assert effective[1] == pytest.approx(20000 * (1 - r) / (1 + r), rel=0.15)
    assert split_r_hat(chains).max() < 1.01
    assert split_r_hat(chains + np.arange(4)[:, None, None]).min() > 1.3


@pytest.mark.slow
def test_chains_of_a_line_are_the_posterior():
    pytest.importorskip("mici")
    result, found = sampled(PRIORS, lambda p: p["a"] + p["b"] * X, LINE, Ensemble(200, EnsembleMethod.MCMC))
    assert found.r_hat < 1.1
    for estimate in result.estimates:
        mean, std, *_ = found.summary(estimate.label)
        assert abs(mean - estimate.value) < 4 * estimate.std / math.sqrt(found.effective)
        assert abs(std / estimate.std - 1) < 4 / math.sqrt(2 * found.effective)
    assert "R-hat at most 1.0" in found.sentence
    assert found.evaluations > CHAINS * WARM_UP + 200  # no sample comes without a gradient


@pytest.mark.slow
def test_chains_stay_within_bounds():
    """A level of 0.02 +- 0.033 that must be positive: the mean of the normal distribution cut off at 0."""
    pytest.importorskip("mici")
    problem = [Parameter("level", 0.05, 0.0, 10.0)]
    _, found = sampled(
        problem, lambda p: p["level"].expand(9), torch.full((9,), 0.02), Ensemble(400, EnsembleMethod.MCMC)
    )
    std, values = SIGMA / 3, found.values[:, 0]
    cut = stats.truncnorm(-0.02 / std, np.inf, 0.02, std)
    assert values.min() >= 0
    assert values.mean() == pytest.approx(cut.mean(), abs=4 * cut.std() / math.sqrt(found.effective))


def test_without_mici_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mici", None)
    with pytest.raises(InputError, match=r"pip install 'bilevel\[mcmc\]'"):
        sampled(PRIORS, lambda p: p["a"] + p["b"] * X, LINE, Ensemble(10, EnsembleMethod.MCMC))
