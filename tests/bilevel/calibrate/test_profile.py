"""Profile likelihood: closed forms where phi is a parabola, brute force where it is not, and what has no bound."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq

from bilevel.calibrate import Noise, Parameter, Settings, calibrate, problem_from_function, profiles
from bilevel.report import InputError

X = torch.linspace(0.0, 4.0, 9)
LINE = 2.0 + 3.0 * X + 0.1 * torch.sin(37.0 * torch.arange(9.0))
KNOWN = Settings(noise=Noise.KNOWN, verify=False)
ESTIMATED = Settings(verify=False)


def line(p):
    return p["a"] + p["b"] * X


def profiled(problem, name, settings=ESTIMATED):
    result = calibrate(problem, settings=settings)
    return result, profiles(problem, result.evaluation, [name], settings=settings)[0]


def test_of_a_line_it_is_the_linear_interval():
    result, found = profiled(problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], line, LINE), "b")
    b = result.estimates[1]
    assert (found.lower, found.upper) == pytest.approx((b.lower95, b.upper95), abs=1e-4 * b.std)
    assert found.bounded == (True, True)
    assert "b is between" in found.sentence
    s = result.phi / 7
    expected = result.phi + s * ((found.values - b.value) / b.std) ** 2
    np.testing.assert_allclose(found.phi, expected, rtol=1e-8)


def test_beside_a_prior_the_noise_is_that_of_the_data():
    """a b x with a prior on b: the data know the product, and the prior is not scaled by their scatter."""
    x, noise = torch.linspace(0.1, 1, 30), 1e-3 * torch.randn(30, generator=torch.Generator().manual_seed(1))
    free = [Parameter("a", 2.0), Parameter("b", 2.5, prior_mean=2.0, prior_std=0.1)]
    problem = problem_from_function(free, lambda p: p["a"] * p["b"] * x, 6 * x + noise)
    result, found = profiled(problem, "b")
    quantile = stats.t.ppf(0.975, result.statistics.degrees_of_freedom)
    assert found.upper - found.lower == pytest.approx(2 * quantile * 0.1, rel=1e-3)


def test_a_formula_and_a_row_of_weight_0_have_profiles_too():
    weight = torch.ones(9).index_fill(0, torch.tensor([8]), 0.0)
    problem = problem_from_function(
        [Parameter("a", 0.0), Parameter("b", 1.0), Parameter("end", expr="a + 4 * b")], line, LINE, weight
    )
    result = calibrate(problem, settings=ESTIMATED)
    formula, row = profiles(problem, result.evaluation, ["end", "data[9]"], settings=ESTIMATED)
    low, high = result.forecasts.lower95[8], result.forecasts.upper95[8]
    for found in (formula, row):
        assert (found.lower, found.upper) == pytest.approx((low, high), abs=1e-4 * (high - low))
    assert row.estimate == pytest.approx(float(result.evaluation.prediction[8]), rel=1e-12)


S = torch.tensor([0.5, 1.0, 2.0])
RATES = torch.tensor([0.32, 0.51, 0.72])
SIGMA = 0.05


def michaelis_menten():
    return problem_from_function(
        [Parameter("vmax", 1.0, transform="log"), Parameter("km", 1.0, transform="log")],
        lambda p: p["vmax"] * S / (p["km"] + S),
        RATES,
        weight=1 / SIGMA,
    )


def least_phi_at_km(km):
    shape, rates = (S / (km + S)).numpy(), RATES.numpy()
    vmax = shape @ rates / (shape @ shape)
    return float(np.sum(((vmax * shape - rates) / SIGMA) ** 2))


def test_michaelis_menten_with_three_data_is_what_brute_force_finds():
    result, found = profiled(michaelis_menten(), "km", KNOWN)
    threshold = result.phi + stats.chi2.ppf(0.95, 1)
    best = float(result.values["km"])
    lower = brentq(lambda km: least_phi_at_km(km) - threshold, 1e-3, best)
    upper = brentq(lambda km: least_phi_at_km(km) - threshold, best, 1e3)
    assert (found.lower, found.upper) == pytest.approx((lower, upper), rel=1e-2)
    assert abs(found.linear[1] / upper - 1) > 0.1  # where linear theory is off by more than ten percent
    np.testing.assert_allclose(found.phi, [least_phi_at_km(km) for km in found.values], rtol=1e-6, atol=1e-9)


def test_noisier_data_bound_it_from_below_only():
    problem = problem_from_function(
        [Parameter("vmax", 1.0, transform="log"), Parameter("km", 1.0, transform="log")],
        lambda p: p["vmax"] * S / (p["km"] + S),
        RATES,
        weight=1 / (2.5 * SIGMA),
    )
    result, found = profiled(problem, "km", KNOWN)
    assert found.bounded == (True, False)
    threshold = 2.5**2 * (result.phi + stats.chi2.ppf(0.95, 1))
    lower = brentq(lambda km: least_phi_at_km(km) - threshold, 1e-6, float(result.values["km"]))
    assert found.lower == pytest.approx(lower, rel=1e-2)
    assert "km is only bounded from below, by" in found.sentence


def test_what_the_data_do_not_see_is_not_bounded():
    problem = problem_from_function(
        [Parameter("a", 1.0), Parameter("c", 5.0, 1.0, 9.0)], lambda p: p["a"] * X + 0.0 * p["c"], LINE
    )
    result = calibrate(problem, settings=ESTIMATED)
    (found,) = profiles(problem, result.evaluation, ["c"], settings=ESTIMATED)
    assert found.bounded == (False, False)
    assert (found.values[0], found.values[-1]) == pytest.approx((1.0, 9.0))
    assert "c is not bounded by the data: down to 1 phi rises by 0 %" in found.sentence


def test_a_better_fit_along_the_way_is_told():
    """phi = (x^2 - 1)^2 / s^2 + ((x - 1) / 3)^2 / s^2 has minima near -1 and at 1, with a pass that the interval reaches over."""

    def wells(p):
        return torch.stack([p["x"] ** 2 - 1, (p["x"] - 1) / 3])

    problem = problem_from_function([Parameter("x", -1.0, -3.0, 3.0)], wells, torch.zeros(2), weight=2.0)
    result, found = profiled(problem, "x", KNOWN)
    assert result.phi > 1.0
    assert found.phi.min() < result.phi - 0.05
    assert "a better fit lies at" in found.sentence


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("d", "no such parameter or row"),
        ("fixed", "it is fixed"),
        ("data[3]", "the row is fitted"),
        ("data[10]", "has rows 1 to 9"),
    ],
)
def test_what_has_no_profile(name, what):
    free = [Parameter("a", 0.0), Parameter("b", 1.0), Parameter("fixed", 0.0, fixed=True)]
    problem = problem_from_function(free, lambda p: line(p) + p["fixed"], LINE)
    with pytest.raises(InputError, match=what):
        profiled(problem, name)


def test_an_exact_fit_has_no_noise_to_measure_by():
    with pytest.raises(InputError, match="nothing says how large the noise is"):
        profiled(problem_from_function([Parameter("a", 0.0), Parameter("b", 1.0)], line, 2 + 3 * X), "a")


def test_a_study_asks_for_profiles_and_the_verb_for_others(study, no_pictures):
    study.edit("title: Decay", "title: Decay\nprofiles: [rate]")
    ran = study.call("run")
    assert ran.code == 0
    assert "rate is between" in ran.out
    first = json.loads((study.results / "result.json").read_text())
    assert list(first["profiles"]) == ["rate"]
    assert first["profiles"]["rate"]["interval95"] == pytest.approx(
        first["profiles"]["rate"]["interval95_linear"], rel=0.05
    )
    assert study.call("profile", "amplitude").code == 0
    second = json.loads((study.results / "result.json").read_text())
    assert list(second["profiles"]) == ["rate", "amplitude"]
    assert second["profiles"]["rate"] == first["profiles"]["rate"]
    assert second["parameters"] == first["parameters"]


def test_a_profile_of_nothing_is_one_line_with_its_place(study):
    study.edit("title: Decay", "title: Decay\nprofiles: [raet]")
    ran = study.call("run")
    assert ran.code == 2
    assert "line 2: profiles[1]" in ran.err
    assert "did you mean 'rate'?" in ran.err
    assert len(ran.err.splitlines()) == 1
